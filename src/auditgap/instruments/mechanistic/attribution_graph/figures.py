"""The graph drawn, its numbers as heat maps, and what it restores as it grows."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from auditgap.instruments.mechanistic.attribution_graph.ablation import faithfulness
from auditgap.instruments.mechanistic.attribution_graph.checks import Cuts
from auditgap.instruments.mechanistic.attribution_graph.graph import Node
from auditgap.instruments.patching.locus import Held
from auditgap.models.direct import Component
from auditgap.records import Curve, Figure, Graph, GraphEdge, GraphNode, Grid, Measured

__all__ = ["drawn", "figures"]

EDGE_SHARE = 0.8
"""Share of the edges' total size that the drawing keeps, largest first."""


def figures(
    every: Sequence[Component],
    labels: Sequence[str],
    scores: Float[np.ndarray, "component role"],
    direct: Float[np.ndarray, " component"],
    nodes: Sequence[Node],
    between: Float[np.ndarray, "node receiver"],
    cuts: Cuts,
    held: Held,
) -> tuple[Figure, ...]:
    """The graph, nodes by position, direct contributions by head, edges between the kept nodes, faithfulness by size."""
    weights = [float(scores[every.index(node.component), node.role]) for node in nodes]
    return (
        drawn(nodes, weights, labels, between, n_layers=1 + max(component.layer for component in every)),
        _nodes(every, labels, scores),
        _direct(every, direct),
        _edges(nodes, labels, between),
        _sizes(cuts, held),
    )


def drawn(
    nodes: Sequence[Node],
    weights: Sequence[float],
    labels: Sequence[str],
    between: Float[np.ndarray, "node receiver"],
    *,
    n_layers: int,
) -> Graph:
    """The kept nodes by position and depth, the target on top, and the largest edges that make up `EDGE_SHARE` of their size."""
    depths = ["embedding", *(name for layer in range(n_layers) for name in (f"heads {layer}", f"mlp {layer}")), "target"]
    placed = [
        GraphNode(label=_short(node), column=node.role, row=_depth(node), weight=weight)
        for node, weight in zip(nodes, weights, strict=True)
    ]
    placed.append(GraphNode(label="answer less foil", column=len(labels) - 1, row=len(depths) - 1, weight=1.0))
    order = np.argsort(-np.abs(between), axis=None, kind="stable")
    sizes = np.abs(between).ravel()[order]
    before = np.cumsum(sizes) - sizes
    kept = order[(before < EDGE_SHARE * sizes.sum()) & (sizes > 0)]
    sources, targets = np.unravel_index(kept, between.shape)
    return Graph(
        name="graph",
        title="Kept nodes with what they bring directly to each other and to the answer: shares of the gap, orange against it",
        columns=tuple(labels),
        rows=tuple(depths),
        nodes=tuple(placed),
        edges=tuple(
            GraphEdge(source=int(source), target=int(target), weight=float(between[source, target]))
            for source, target in zip(sources, targets, strict=True)
        ),
    )


def _depth(node: Node) -> int:
    component = node.component
    return 0 if component.kind == "embedding" else 1 + 2 * component.layer + (component.kind == "mlp")


def _short(node: Node) -> str:
    component = node.component
    return {"embedding": "emb", "head": f"h{component.head}", "mlp": "mlp"}[component.kind]


def _nodes(every: Sequence[Component], labels: Sequence[str], scores: Float[np.ndarray, "component role"]) -> Grid:
    """Layers by positions, heads of a layer summed."""
    lines = {}
    for component, values in zip(every, scores, strict=True):
        name = {"embedding": "embedding", "head": f"attention {component.layer}", "mlp": f"mlp {component.layer}"}[component.kind]
        lines[name] = lines.get(name, 0) + values
    return Grid(
        name="nodes",
        title="Effect of what was written there, clean less corrupted, along all paths; share of the gap, held-out pairs",
        x_label="token position",
        y_label="component",
        columns=tuple(labels),
        rows=tuple(lines),
        values=tuple(tuple(values.tolist()) for values in lines.values()),
    )


def _direct(every: Sequence[Component], direct: Float[np.ndarray, " component"]) -> Grid:
    """Layers by heads, and the MLP last."""
    layers = 1 + max(component.layer for component in every)
    width = (len(every) - 1) // layers
    return Grid(
        name="direct",
        title="Logits that each head and MLP adds by itself to answer less foil, clean prompts, last position, held-out pairs",
        x_label="head",
        y_label="layer",
        columns=(*(str(head) for head in range(width - 1)), "mlp"),
        rows=tuple(str(layer) for layer in range(layers)),
        values=tuple(tuple(row) for row in direct[1:].reshape(layers, width).tolist()),
    )


def _edges(nodes: Sequence[Node], labels: Sequence[str], between: Float[np.ndarray, "node receiver"]) -> Grid:
    names = [f"{node.component} @ {labels[node.role]}" for node in nodes]
    return Grid(
        name="edges",
        title="What each kept node (row) brings directly to each later one and to the target (column); share of the gap",
        x_label="receiver",
        y_label="source",
        columns=(*names, "target"),
        rows=tuple(names),
        values=tuple(tuple(row) for row in between.tolist()),
    )


def _sizes(cuts: Cuts, held: Held) -> Curve:
    found = [
        held.measured(f"faithfulness.{size}", values, "")
        for size, values in zip(cuts.sizes, faithfulness(cuts.restored(cuts.by_size)), strict=True)
    ]
    bands = [(size, m) for size, m in zip(cuts.sizes, found, strict=True) if isinstance(m, Measured)]
    random = np.median(faithfulness(cuts.restored(cuts.random_by_size))[..., held.rows].mean(-1), axis=1)
    return Curve(
        name="faithfulness-by-size",
        title="Faithfulness of the graph as nodes are added by score; line: median of random graphs of the same make-up",
        x_label="nodes kept",
        y_label="faithfulness",
        x=tuple(float(size) for size, _ in bands),
        y=tuple(m.value for _, m in bands),
        low=tuple(m.interval.low for _, m in bands),
        high=tuple(m.interval.high for _, m in bands),
        reference=tuple(random.tolist()) if len(bands) == len(random) else (),
    )

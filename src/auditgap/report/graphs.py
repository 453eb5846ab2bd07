"""A stored graph on a canvas: columns left to right, rows from the bottom up, as the residual stream runs."""

from collections import defaultdict

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import FancyArrowPatch

from auditgap.errors import UsageError
from auditgap.records import Graph, GraphNode

__all__ = ["check_graph", "draw_graph"]

FOR, AGAINST = "#2f7fc1", "#c1662f"
"""Colour of positive and of negative weights."""
_SPREAD = 0.8
"""Share of a cell's width over which its nodes are spread."""


def check_graph(graph: Graph) -> None:
    """Every node has its place and every edge its two nodes.

    Raises:
        UsageError: there is no node, a place outside the columns or rows, or an edge that ends nowhere.
    """
    n_columns, n_rows, n_nodes = len(graph.columns), len(graph.rows), len(graph.nodes)
    outside = [node.label for node in graph.nodes if node.column >= n_columns or node.row >= n_rows]
    loose = [f"{edge.source} -> {edge.target}" for edge in graph.edges if max(edge.source, edge.target) >= n_nodes]
    if not graph.nodes or outside or loose:
        raise UsageError(
            f"figure '{graph.name}': expected nodes inside {n_columns} columns by {n_rows} rows, edges between {n_nodes} nodes, "
            f"got {'no node' if not graph.nodes else f'outside {outside}, loose {loose}'}; correct the instrument that made it"
        )


def draw_graph(graph: Graph, canvas: Canvas, *, ink: str) -> Axes:
    """Nodes as dots whose area is their weight, edges as lines whose width is theirs; what stands against has another colour."""
    axes = canvas.add_subplot()
    places = _places(graph.nodes)
    heaviest = max((abs(edge.weight) for edge in graph.edges), default=0.0) or 1.0
    for edge in sorted(graph.edges, key=lambda edge: abs(edge.weight)):
        share = abs(edge.weight) / heaviest
        axes.add_patch(
            FancyArrowPatch(
                places[edge.source],
                places[edge.target],
                arrowstyle="-",
                connectionstyle="arc3,rad=0.08",
                color=FOR if edge.weight > 0 else AGAINST,
                alpha=0.15 + 0.75 * share,
                linewidth=0.4 + 2.6 * share,
                shrinkA=3,
                shrinkB=3,
            )
        )
    largest = max(abs(node.weight) for node in graph.nodes) or 1.0
    axes.scatter(
        [x for x, _ in places],
        [y for _, y in places],
        s=[12 + 90 * abs(node.weight) / largest for node in graph.nodes],
        c=[FOR if node.weight >= 0 else AGAINST for node in graph.nodes],
        zorder=3,
    )
    for node, (x, y) in zip(graph.nodes, places, strict=True):
        axes.annotate(
            node.label, (x, y), textcoords="offset points", xytext=(0, 6), ha="center", fontsize=6.5, color=ink, zorder=4
        )
    axes.set_xlim(-0.6, len(graph.columns) - 0.4)
    axes.set_ylim(-0.5, len(graph.rows) - 0.3)
    axes.grid(axis="y", color=ink, alpha=0.1, linewidth=0.5)
    return axes


def _places(nodes: tuple[GraphNode, ...]) -> list[tuple[float, float]]:
    """Nodes of one cell stand side by side."""
    cells: dict[tuple[int, int], list[int]] = defaultdict(list)
    for i, node in enumerate(nodes):
        cells[node.column, node.row].append(i)
    placed = [(0.0, 0.0)] * len(nodes)
    for (column, row), members in cells.items():
        step = _SPREAD / len(members)
        for k, i in enumerate(members):
            placed[i] = (column + (k - (len(members) - 1) / 2) * step, row + 0.12 * (k % 2))
    return placed

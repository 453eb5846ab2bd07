"""The graph of every pair: what each node adds to the difference between its two runs, and how much of that the picture misses.

A node is a component (embedding, head, MLP) at a role: positions that mean the same in every pair. Its score is the first-order
effect on the target of what it wrote in the clean less in the corrupted run, along all paths. Attention patterns and norm scales
are frozen and MLPs linearised, at the clean run and at the corrupted one, and the two are averaged: the trapezoidal rule.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from auditgap.instruments.patching.pairs import Pairs
from auditgap.models import Model, capture_tokens, tokenize
from auditgap.models.anatomy import Anatomy
from auditgap.models.direct import Component, components, direct_effects, freeze, path_effects, write_sites
from auditgap.models.flow import Flow, trace_flow

__all__ = ["Attribution", "Node", "Roles", "assign_roles", "attribute", "choose", "edges", "jaccard", "nodes_of"]

MAX_FROM_END = 12


class Node(NamedTuple):
    """A component at a role."""

    component: Component
    role: int


class Roles(NamedTuple):
    """What each position of each pair is, so that graphs of different pairs can be compared."""

    labels: tuple[str, ...]
    of: list[Int[np.ndarray, " _"]]
    """The role of each position; -1 before the first difference, where both runs are the same."""

    def take(self, rows: Sequence[int]) -> "Roles":
        """Those of some pairs."""
        return Roles(self.labels, [self.of[row] for row in rows])

    def masks(self, rows: Sequence[int], role: int) -> Bool[np.ndarray, "pair pos"]:
        """Where these pairs, of equal length, have the role."""
        return np.stack([self.of[row] == role for row in rows])

    def summed(self, values: Sequence[Float[np.ndarray, "component _"]]) -> Float[np.ndarray, "pair component role"]:
        """Sums over the positions of each role."""
        every = np.arange(len(self.labels))
        return np.stack([one @ (of[:, None] == every) for one, of in zip(values, self.of, strict=True)])


def assign_roles(first: Sequence[int], last: Sequence[int], lengths: Sequence[int]) -> Roles:
    """Every position from the first difference on has one role; the last token, where the answer is said, always the same.

    `first` and `last` are the first and last differing token. What follows the difference is counted back from the end, as far as
    every pair reaches (at most MAX_FROM_END tokens); what lies between is one role, as are the tokens inside a difference.
    """
    n_back = min(MAX_FROM_END, min(np.asarray(lengths) - np.asarray(last)) - 1)
    labels = ["difference start", "difference inside", "difference end", "after difference"]
    labels += [f"prompt end-{step}" if step else "prompt end" for step in range(n_back - 1, -1, -1)]
    found = []
    for start, end, length in zip(first, last, lengths, strict=True):
        of = np.full(length, 3)
        of[:start], of[start : end + 1], of[start], of[end] = -1, 1, 0, 2
        of[length - n_back :] = np.arange(4, 4 + n_back)
        found.append(of)
    used = sorted({int(role) for of in found for role in of if role >= 0})
    renumbered = np.array([*(used.index(role) if role in used else -1 for role in range(len(labels))), -1])
    return Roles(tuple(labels[role] for role in used), [renumbered[of] for of in found])


class Attribution(NamedTuple):
    """What was computed for every pair, in order."""

    scores: list[Float[np.ndarray, "component _"]]
    """Effect of each component at each position on clean less corrupted target, in logits."""
    direct: list[Float[np.ndarray, " component"]]
    """What each component adds to the clean target by itself, at the last position."""
    parts: Float[np.ndarray, "pair part"]
    """The gap as a sum: embedding, attention and MLP error of every layer, error of the final norm."""
    clean: Float[np.ndarray, " pair"]
    corrupted: Float[np.ndarray, " pair"]
    incompleteness: Float[np.ndarray, "pair 2"]
    """Relative error of the two sums of contributions: direct, and along all paths."""

    def error_share(self) -> Float[np.ndarray, " pair"]:
        """Share of the sizes of all parts of the gap that the linear picture misses."""
        sizes = np.abs(self.parts)
        return sizes[:, 1:].sum(1) / sizes.sum(1)

    def shares_by_kind(self) -> dict[str, Float[np.ndarray, " pair"]]:
        """The same for attention, MLPs and the final norm."""
        sizes = np.abs(self.parts)
        kinds = {"attention": sizes[:, 1:-1:2], "mlp": sizes[:, 2:-1:2], "final_norm": sizes[:, -1:]}
        return {name: part.sum(1) / sizes.sum(1) for name, part in kinds.items()}


def attribute(model: Model, anatomy: Anatomy, pairs: Pairs, *, batch_size: int) -> Attribution:
    """Attribute the logit difference of every pair.

    Raises:
        SiteError: the model names no unembedding module.
    """
    scores: dict[int, NDArray[np.float64]] = {}
    direct: dict[int, NDArray[np.float64]] = {}
    rest: dict[int, NDArray[np.float64]] = {}
    for rows, flows, change in _batches(model, anatomy, pairs, batch_size):
        gap, frozen = change.clean - change.corrupted, [graph.frozen for graph in flows]
        own, paths = ([effects(run) for run in frozen] for effects in (direct_effects, path_effects))
        worst = [torch.maximum(*(effects.error for effects in pair)) for pair in (own, paths)]
        parts = _mean(graph.errors(change.stream, gap) for graph in flows)
        numbers = torch.cat([torch.stack([change.clean, change.corrupted, *worst], dim=1), parts], dim=1)
        effects = _mean(graph.effects(change.writes) for graph in flows)
        for found, values in ((scores, effects), (direct, own[0].values[..., -1]), (rest, numbers)):
            found |= zip(rows, values.double().cpu().numpy(), strict=True)
    every = range(len(pairs.rows))
    table = np.stack([rest[row] for row in every])
    return Attribution(
        [scores[row] for row in every],
        [direct[row] for row in every],
        parts=table[:, 4:],
        clean=table[:, 0],
        corrupted=table[:, 1],
        incompleteness=table[:, 2:4],
    )


def edges(
    model: Model, anatomy: Anatomy, pairs: Pairs, roles: Roles, nodes: Sequence[Node], *, batch_size: int
) -> Float[np.ndarray, "node receiver"]:
    """How much of each receiver's effect each node brings directly to it, as a share of the gap: means over the pairs.

    The receivers are the nodes and, last, the target.
    """
    order = {component: i for i, component in enumerate(components(model))}
    found = np.zeros((len(pairs.rows), len(nodes), len(nodes) + 1))
    for rows, flows, change in _batches(model, anatomy, pairs, batch_size):
        gap = (change.clean - change.corrupted).double().cpu().numpy()
        where = [roles.masks(rows, role) for role in range(len(roles.labels))]
        for i, receiver in enumerate([*nodes, None]):
            at = torch.from_numpy(where[receiver.role if receiver else -1]).to(model.device)
            component = receiver.component if receiver else None
            into = _mean(graph.edges(component, at, change.writes) for graph in flows).double().cpu().numpy()
            for j, source in enumerate(nodes):
                found[rows, j, i] = (into[:, order[source.component]] * where[source.role]).sum(1) / gap
    return found.mean(0)


def _mean(values: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(values)).mean(0)


class _Change(NamedTuple):
    """Clean less corrupted."""

    clean: Tensor
    corrupted: Tensor
    writes: dict[str, Tensor]
    stream: dict[str, Tensor]


def _batches(model: Model, anatomy: Anatomy, pairs: Pairs, batch_size: int) -> Iterator[tuple[list[int], list[Flow], _Change]]:
    last = f"resid_post.{model.n_layers - 1}"
    sites = [*(f"{kind}.{layer}" for layer in range(model.n_layers) for kind in ("resid_pre", "attn_out", "mlp_out")), last]
    for rows in pairs.by_length(batch_size):
        tokens = [
            tokenize(model, [prompts[row] for row in rows]) for prompts in (pairs.prompts("clean"), pairs.prompts("corrupted"))
        ]
        runs = [freeze(model, anatomy, run, pairs.answer[rows], pairs.foil[rows]) for run in tokens]
        streams = [capture_tokens(model, run, sites) for run in tokens]
        change = _Change(
            runs[0].target,
            runs[1].target,
            {site: runs[0].writes[site] - runs[1].writes[site] for site in write_sites(model)},
            {site: (streams[0][site] - streams[1][site]).to(model.device) for site in sites},
        )
        yield rows, [trace_flow(run) for run in runs], change


def choose(scores: Float[np.ndarray, "component role"], n_nodes: int) -> Bool[np.ndarray, "component role"]:
    """The `n_nodes` largest by size; ties by order."""
    kept = np.zeros(scores.size, dtype=np.bool_)
    kept[np.argsort(-np.abs(scores).ravel(), kind="stable")[:n_nodes]] = True
    return kept.reshape(scores.shape)


def nodes_of(model: Model, graph: Bool[np.ndarray, "component role"]) -> list[Node]:
    """The nodes of a graph, in the order in which they write."""
    every = components(model)
    return [Node(every[component], int(role)) for component, role in np.argwhere(graph)]


def jaccard(one: Bool[np.ndarray, "component role"], other: Bool[np.ndarray, "component role"]) -> float:
    """Share of the nodes of either graph that are in both: 1 is the same graph, 0 no node in common."""
    return float((one & other).sum() / max((one | other).sum(), 1))

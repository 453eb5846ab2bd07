"""How far estimates agree with exact effects, and what an estimate may have missed."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from auditgap.errors import UsageError
from auditgap.instruments.mechanistic.attribution_patching.exact import NodeSet, Patcher
from auditgap.instruments.mechanistic.attribution_patching.nodes import Node

__all__ = ["Halves", "halves", "pearson", "random_ranking_p", "recall", "spearman", "top", "upper_bounds"]


def top(scores: Float[np.ndarray, " node"], k: int) -> Int[np.ndarray, " rank"]:
    """The `k` nodes of the largest size, largest first; the earlier of equals."""
    return np.argsort(-np.abs(scores), kind="stable")[:k]


def recall(scores: Float[np.ndarray, " node"], exact: Float[np.ndarray, " node"], k: int) -> float:
    """Share of the `k` nodes of largest exact effect that are among the `k` of largest score."""
    return len(np.intersect1d(top(scores, k), top(exact, k))) / k


def pearson(scores: Float[np.ndarray, " node"], exact: Float[np.ndarray, " node"]) -> float:
    """Linear correlation; NaN where one of them does not vary."""
    if not (np.ptp(scores) > 0 and np.ptp(exact) > 0):
        return float("nan")
    return float(np.corrcoef(scores, exact)[0, 1])


def spearman(scores: Float[np.ndarray, " node"], exact: Float[np.ndarray, " node"]) -> float:
    """Rank correlation of the sizes; NaN where one of them does not vary."""
    from scipy.stats import rankdata  # slow to import, and most commands do not need it

    return pearson(rankdata(np.abs(scores)), rankdata(np.abs(exact)))


def random_ranking_p(n_hits: int, *, k: int, n_nodes: int) -> float:
    """How often `k` nodes drawn blindly hold as many of the true top `k`: the tail of the hypergeometric distribution."""
    from scipy.stats import hypergeom

    return float(hypergeom.sf(n_hits - 1, n_nodes, k, k))


class Halves(NamedTuple):
    """Random halves of some nodes of one layer, and what patching each half did."""

    nodes: Int[np.ndarray, " node"]
    """Indices of the nodes that were divided."""
    member: Bool[np.ndarray, "draw node"]
    """True if the node was in the first half."""
    first: Float[np.ndarray, " draw"]
    second: Float[np.ndarray, " draw"]


def upper_bounds(drawn: Halves, *, level: float = 0.95) -> Float[np.ndarray, " node"]:
    """One-sided bounds on the size of each node's mean effect, from halves in which it was patched and halves without it.

    In every draw, the half with the node less the half without it is the node's effect plus noise of mean 0, if effects of nodes
    patched together add up on average. A one-sided t bound on the mean over draws follows. The largest of the bounds holds for
    the largest of the effects, because it holds for whichever node that is: no correction for their number.

    Raises:
        UsageError: fewer than two draws.

    Source: arXiv:2403.00745, section 3.3, where it is Welch's test on random subsets of all nodes. Halves of one layer, so that
    no patch overwrites another, and their pairing on one prompt are ours.
    """
    from scipy.stats import t

    n = len(drawn.first)
    if n < 2:
        raise UsageError(f"expected at least 2 draws, got {n}")
    difference = np.where(drawn.member, 1.0, -1.0) * (drawn.first - drawn.second)[:, None]
    spread = difference.std(axis=0, ddof=1) / np.sqrt(n)
    return np.abs(difference.mean(axis=0)) + float(t.ppf(level, n - 1)) * spread


def halves(
    patcher: Patcher, rest: Sequence[int], pairs: Sequence[int], *, n_draws: int, rng: np.random.Generator
) -> list[Halves]:
    """Patch random halves of the remaining nodes, one kind and layer at a time, on the pairs in turn."""
    nodes = patcher.layout.nodes
    by_place: dict[tuple[str, int], list[int]] = {}
    for index in rest:
        by_place.setdefault((nodes[index].kind, nodes[index].layer), []).append(index)
    masks: list[Bool[np.ndarray, "draw node"]] = []
    sets: list[NodeSet] = []
    for indices in by_place.values():
        sizes = rng.permutation(np.resize([len(indices) // 2, (len(indices) + 1) // 2], n_draws))
        masks.append(np.argsort(rng.random((n_draws, len(indices))), axis=1) < sizes[:, None])
        on = [pairs[i] for i in np.resize(rng.permutation(len(pairs)), n_draws).tolist()]
        for mask in (masks[-1], ~masks[-1]):
            sets += [NodeSet(pair, _chosen(nodes, indices, row)) for pair, row in zip(on, mask, strict=True)]
    effects = patcher.effects(sets).reshape(-1, 2, n_draws)
    return [
        Halves(np.array(indices), mask, *sides) for indices, mask, sides in zip(by_place.values(), masks, effects, strict=True)
    ]


def _chosen(nodes: Sequence[Node], indices: Sequence[int], mask: Bool[np.ndarray, " node"]) -> list[Node]:
    return [nodes[index] for index, chosen in zip(indices, mask, strict=True) if chosen]

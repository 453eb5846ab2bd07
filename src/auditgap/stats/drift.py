"""Has the distribution of a stream moved? Bets for `EProcess` and `EDetector` on ranks and on shares.

1. **Ranks.** Where does each value stand among the reference sample and all values since? Under exchangeability (reference
   and stream could have come in any order) these ranks, ties broken at random, are independent and uniform on [0, 1], exactly,
   whatever the distribution and however small the reference. Values are kept as counts per bin, so memory is constant. What has
   arrived joins the reference: a shift that outlasts the reference becomes the new normal.
2. **Shares.** A stream of categories whose budgets are stated. The hypothesis is that no category takes more than its budget.

Whole batches are compared in `auditgap.stats.energy`.

Source: V. Vovk, I. Nouretdinov, A. Gammerman, Testing exchangeability on-line (ICML 2003); V. Vovk, arXiv:1906.09256.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditgap.errors import UsageError, nearest
from auditgap.stats.checks import numbers
from auditgap.stats.eprocess import stakes

__all__ = ["N_RANK_BETS", "SHARE_ODDS", "Ranks", "ShareBets", "conformal_ranks", "quantile_edges", "rank_factors"]

_SLOPES = (-0.8, -0.3, -0.1, 0.1, 0.3, 0.8)
_SPREADS = (-0.4, 0.2, 0.8)
N_RANK_BETS = len(_SLOPES) + len(_SPREADS)
SHARE_ODDS = (1.5, 3.0, 8.0)


def quantile_edges(values: ArrayLike, *, n_bins: int = 20) -> list[float]:
    """The inner edges of bins that hold about equally many of `values`; fewer than `n_bins - 1` where values repeat.

    Raises:
        UsageError: fewer than two bins, no values, NaN or infinity, or all values equal.
    """
    sample = numbers(values, name="values")
    if n_bins < 2 or not np.isfinite(sample).all():
        raise UsageError(f"expected at least 2 bins and finite values, got {n_bins} bins and {sample.min()} to {sample.max()}")
    edges = np.unique(np.quantile(sample, np.arange(1, n_bins) / n_bins, method="inverted_cdf"))
    if not len(edges := edges[edges > sample.min()]):
        raise UsageError(f"expected values that differ, got {sample.min()} in most of {len(sample)}; watch a rate instead")
    return edges.tolist()


def conformal_ranks(bins: NDArray[np.integer], counts: ArrayLike, uniforms: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each event: the share of earlier ones in higher bins, plus a uniform part of those in its own.

    `bins` and `uniforms` have shape (streams, events); `counts` are the reference's, one for all streams or one row each.
    """
    rows = np.arange(len(bins))
    counted = np.asarray(counts, dtype=np.float64)
    seen = np.broadcast_to(counted, (len(bins), counted.shape[-1])).copy()
    ranks = np.empty(bins.shape)
    for t, (column, uniform) in enumerate(zip(bins.T, uniforms.T, strict=True)):
        seen[rows, column] += 1
        above = (seen * (np.arange(seen.shape[1]) > column[:, None])).sum(1)
        ranks[:, t] = (above + uniform * seen[rows, column]) / seen.sum(1)
    return ranks


def rank_factors(ranks: ArrayLike) -> NDArray[np.float64]:
    """What each bet is multiplied by: six on ranks that lean up or down, three on ranks that crowd at the ends or in the middle.

    Raises:
        UsageError: a rank outside [0, 1].
    """
    r = np.asarray(ranks, dtype=np.float64)
    if not ((r >= 0.0) & (r <= 1.0)).all():
        raise UsageError(f"ranks: expected all in [0, 1], got {r.min()} to {r.max()}")
    lean = 2 * r[..., None] - 1
    return np.concatenate([1 + np.array(_SLOPES) * lean, 1 + np.array(_SPREADS) * (3 * lean**2 - 1)], axis=-1)


class Ranks:
    """The rank of each value of a stream among the reference and all before it, in constant memory; see `conformal_ranks`."""

    __slots__ = ("counts", "edges", "seed", "total")

    def __init__(self, edges: Sequence[float], counts: Sequence[int], *, seed: int = 0) -> None:
        if not edges or any(not low < high for low, high in pairwise(edges)) or len(counts) != len(edges) + 1:
            raise UsageError(f"expected rising edges and one count more than edges, got {len(edges)} edges, {len(counts)} counts")
        if min(counts) < 0 or not sum(counts):
            raise UsageError(f"counts: expected at least one reference value and none below 0, got {list(counts)!r:.80}")
        self.edges = tuple(edges)
        self.counts = list(counts)
        """Of the reference and of the stream so far: the whole state."""
        self.total = sum(counts)
        self.seed = seed
        """Ties are broken by a hash of this and of the number of the event, so that a resumed stream gives the same ranks."""

    def update(self, value: float) -> float:
        """The rank of a value, which then counts among those seen.

        Raises:
            UsageError: NaN.
        """
        if value != value:
            raise UsageError("expected a number, got NaN; find where it arises, do not drop it")
        index = bisect_right(self.edges, value)
        self.counts[index] += 1
        self.total += 1
        return (sum(self.counts[index + 1 :]) + _uniform(self.seed, self.total) * self.counts[index]) / self.total

    @staticmethod
    def factors(rank: float) -> list[float]:
        """`rank_factors` of one rank."""
        lean = 2.0 * rank - 1.0
        spread = 3.0 * lean * lean - 1.0
        return [*[1.0 + slope * lean for slope in _SLOPES], *[1.0 + weight * spread for weight in _SPREADS]]


@dataclass(frozen=True, slots=True)
class ShareBets:
    """Bets against "given the past, no category is more likely than its budget"; three per category."""

    budgets: Mapping[str, float]
    odds: tuple[float, ...] = SHARE_ODDS
    _misses: tuple[float, ...] = field(init=False, repr=False)
    _hits: dict[str, tuple[int, tuple[float, ...]]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        misses: list[float] = []
        hits: dict[str, tuple[int, tuple[float, ...]]] = {}
        for category, budget in self.budgets.items():
            stake = stakes(budget, self.odds)
            hits[category] = (len(misses), tuple((1 + stake * (1 - budget)).tolist()))
            misses += (1 - stake * budget).tolist()
        if not misses:
            raise UsageError("budgets: expected at least one category with its budget, got none")
        object.__setattr__(self, "_misses", tuple(misses))
        object.__setattr__(self, "_hits", hits)

    @property
    def n_bets(self) -> int:
        """Categories times odds."""
        return len(self._misses)

    def factors(self, category: str) -> list[float]:
        """What each bet is multiplied by at this event.

        Raises:
            UsageError: the category has no budget.
        """
        if category not in self._hits:
            raise UsageError(f"no budget for the category '{category:.80}'{nearest(category, self._hits)}")
        start, hits = self._hits[category]
        factors = list(self._misses)
        factors[start : start + len(hits)] = hits
        return factors


def _uniform(seed: int, n: int) -> float:
    """A number in [0, 1) that looks random, from `seed` and `n` alone: SplitMix64."""
    mask = (1 << 64) - 1
    z = (seed * 0xD1342543DE82EF95 + n * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return ((z ^ (z >> 31)) >> 11) / (1 << 53)

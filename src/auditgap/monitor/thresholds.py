"""A threshold whose false-positive rate holds on new traffic, not only on the rows that set it.

1. Sort the scores of independent negatives; the threshold is one of them, and an alarm is a score strictly above it.
2. With the k-th largest of n as threshold, the rate on new negatives exceeds `max_fpr` only if at most k - 1 of n draws fell into
   the top `max_fpr` of the traffic, whatever its distribution: chance P(Binomial(n, max_fpr) <= k - 1).
3. Take the largest k for which that chance is at most 1 - `confidence`.

Source: S. S. Wilks, Ann. Math. Statist. 12 (1941) 91-96 (tolerance limits); the same bound is that of "learn then test" with one
loss, A. N. Angelopoulos et al., arXiv:2110.01052.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditgap.errors import UsageError
from auditgap.records import Interval
from auditgap.stats import clopper_pearson

__all__ = ["Threshold", "controlled_threshold", "group_peaks", "n_negatives_needed"]


class Threshold(NamedTuple):
    """Where a request is flagged."""

    value: float
    n: int
    """Independent negatives."""
    n_exceeding: int
    interval: Interval
    """Of the rate on the negatives that set it; the upper end is one-sided at the confidence asked for."""


def controlled_threshold(negatives: ArrayLike, *, max_fpr: float, confidence: float = 0.95) -> Threshold | None:
    """The lowest threshold whose rate on new negatives is at most `max_fpr` with chance `confidence`; None if there are too few.

    Raises:
        UsageError: a rate or chance outside (0, 1), or a score that is not finite.
    """
    scores = np.sort(np.asarray(negatives, dtype=np.float64))[::-1]
    if not np.isfinite(scores).all():
        raise UsageError("expected finite scores of negatives, got NaN or infinity")
    n = len(scores)
    if n < n_negatives_needed(max_fpr, confidence=confidence):
        return None
    from scipy.stats import binom  # half a second to import

    chances = binom.cdf(np.arange(n), n, max_fpr)
    k = int((chances <= 1 - confidence).sum())  # the k-th largest: at most k - 1 lie above it
    value = float(scores[k - 1])
    n_exceeding = int((scores > value).sum())
    two_sided = clopper_pearson(n_exceeding, n, level=round(2 * confidence - 1, 12))  # each end is one-sided at `confidence`
    return Threshold(value, n, n_exceeding, two_sided)


def n_negatives_needed(max_fpr: float, *, confidence: float = 0.95) -> int:
    """The fewest negatives that can show a rate: 299 for 1 % at 95 %, with not one of them above the threshold.

    Raises:
        UsageError: a rate outside (0, 1), or a confidence outside (0.5, 1).
    """
    if not (0 < max_fpr < 1 and 0.5 < confidence < 1):
        raise UsageError(f"expected a rate in (0, 1) and a confidence in (0.5, 1), got {max_fpr} and {confidence}")
    return int(np.ceil(np.log1p(-confidence) / np.log1p(-max_fpr) - 1e-12))


def group_peaks(scores: ArrayLike, groups: Sequence[str]) -> NDArray[np.float64]:
    """The highest score of each group, in order of first appearance: rows of a group are not independent, groups are."""
    highest: dict[str, float] = {}
    for score, group in zip(np.asarray(scores, dtype=np.float64).tolist(), groups, strict=True):
        highest[group] = max(score, highest.get(group, -np.inf))
    return np.array(list(highest.values()))

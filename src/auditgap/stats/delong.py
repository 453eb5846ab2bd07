"""The standard error of an AUROC without resampling, for rows that are independent of each other.

1. A positive's placement is the share of negatives that it outscores (ties count one half); a negative's, the share of positives
   that outscore it. The AUROC is the mean of either.
2. Its variance is the variance of the positives' placements over their number, plus the same for the negatives.

Source: E. R. DeLong, D. M. DeLong, D. L. Clarke-Pearson, Biometrics 44 (1988) 837-845; by ranks, X. Sun, W. Xu, IEEE Signal
Processing Letters 21 (2014) 1389-1393.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditgap.errors import UsageError
from auditgap.records import Interval
from auditgap.stats.checks import level_in_unit, numbers, two_classes

__all__ = ["delong_interval", "delong_variance"]


def delong_variance(scores: ArrayLike, labels: ArrayLike) -> float:
    """Variance of the AUROC of these scores, were the rows drawn anew; 0 for a perfect separation.

    Raises:
        UsageError: NaN, or fewer than two rows of a class.
    """
    placements = _placements(scores, labels)
    if min(map(len, placements)) < 2:
        sizes = " and ".join(str(len(part)) for part in placements)
        raise UsageError(f"expected at least 2 rows of each class, got {sizes}; one row has no spread")
    return float(sum(part.var(ddof=1) / len(part) for part in placements))


def delong_interval(scores: ArrayLike, labels: ArrayLike, *, level: float = 0.95) -> Interval:
    """Where the AUROC lies, by the normal approximation; cut off at 0 and 1.

    Only for rows that are independent. It has no width at an AUROC of exactly 0 or 1, where `auroc_interval` keeps its doubt.

    Raises:
        UsageError: as `delong_variance`.
    """
    from scipy.special import ndtri

    reach = float(ndtri(0.5 + level_in_unit(level) / 2)) * delong_variance(scores, labels) ** 0.5
    area = float(_placements(scores, labels)[0].mean())
    return Interval(low=max(0.0, area - reach), high=min(1.0, area + reach), level=level, method="delong")


def _placements(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = numbers(scores, name="scores")
    truth = two_classes(labels, n=len(values))
    positives, negatives = values[truth == 1], values[truth == 0]
    return _share_below(positives, negatives), 1.0 - _share_below(negatives, positives)


def _share_below(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    ranked = np.sort(others)
    return (np.searchsorted(ranked, values, side="left") + np.searchsorted(ranked, values, side="right")) / (2 * len(ranked))

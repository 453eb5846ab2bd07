"""How well a score tells two classes apart."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditgap.errors import UsageError
from auditgap.records import Interval
from auditgap.stats.bootstrap import cluster_bootstrap
from auditgap.stats.checks import group_codes, level_in_unit, numbers, two_classes

__all__ = ["Roc", "auroc", "auroc_interval", "roc", "threshold_at_fpr", "tpr_at_fpr"]


class Roc(NamedTuple):
    """The trade-off curve, one point per distinct score, from (0, 0) to (1, 1)."""

    fpr: NDArray[np.float64]
    tpr: NDArray[np.float64]


def auroc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve; ties count one half.

    The chance that a random positive outscores a random negative: 0.5 is chance, 0.0 a perfect inverted detector.

    Raises:
        UsageError: no scores, NaN, or only one class.

    Source: J. A. Hanley, B. J. McNeil, Radiology 143 (1982) 29-36. It is the Mann-Whitney U divided by its largest value.
    """
    positives, negatives = _by_class(scores, labels)
    negatives = np.sort(negatives)
    below = np.searchsorted(negatives, positives, side="left")
    below_or_tied = np.searchsorted(negatives, positives, side="right")
    return float((below + below_or_tied).sum() / (2 * len(positives) * len(negatives)))


def auroc_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[object] | NDArray[np.generic],
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int,
) -> Interval:
    """Where the AUROC lies: at each end the wider of the cluster bootstrap and Newcombe's score interval on the number of groups.

    The bootstrap alone would call a perfect separation of eight prompts certain ([1, 1]): no resample can undo it. The score
    interval keeps the doubt that eight prompts leave.

    Raises:
        UsageError: no scores, NaN, one class, or fewer than two groups.
        CannotMeasure: most resamples hold one class only.

    Source: R. G. Newcombe, Statistics in Medicine 25 (2006) 559-573, method 5. Taking the wider of the two is ours.
    """
    values = numbers(scores, name="scores")
    truth = two_classes(labels, n=len(values))
    codes = group_codes(groups, n=len(values))
    resampled = cluster_bootstrap(
        lambda rows: auroc(values[rows], truth[rows]), codes, n_resamples=n_resamples, level=level, seed=seed
    )
    low, high = _newcombe(auroc(values, truth), *(len(np.unique(codes[truth == label])) for label in (1, 0)), level=level)
    return Interval(
        low=min(low, resampled.low),
        high=max(high, resampled.high),
        level=level,
        method="cluster-bootstrap+newcombe",
    )


def roc(scores: ArrayLike, labels: ArrayLike) -> Roc:
    """False- and true-positive rate of "score at or above t", for every distinct score t from the highest down.

    Raises:
        UsageError: no scores, NaN, or only one class.
    """
    positives, negatives = (np.sort(part) for part in _by_class(scores, labels))
    cuts = np.unique(np.concatenate([positives, negatives]))[::-1]
    tpr = 1.0 - np.searchsorted(positives, cuts, side="left") / len(positives)
    fpr = 1.0 - np.searchsorted(negatives, cuts, side="left") / len(negatives)
    return Roc(fpr=np.concatenate([[0.0], fpr]), tpr=np.concatenate([[0.0], tpr]))


def threshold_at_fpr(negatives: ArrayLike, *, max_fpr: float) -> float:
    """The lowest threshold t at which "score > t" alarms on at most `max_fpr` of these negatives.

    Strict: a negative that sits on the threshold is no alarm. -inf if every negative may alarm.

    Raises:
        UsageError: no negatives, NaN, or `max_fpr` outside [0, 1].
    """
    ranked = np.sort(numbers(negatives, name="negatives"))[::-1]
    if not 0.0 <= max_fpr <= 1.0:
        raise UsageError(f"max_fpr: expected a rate between 0 and 1, got {max_fpr}")
    n_allowed = math.floor(max_fpr * len(ranked) + 1e-9)  # 0.29 * 100 is 28.999999999999996
    return float(ranked[n_allowed]) if n_allowed < len(ranked) else -math.inf


def tpr_at_fpr(scores: ArrayLike, labels: ArrayLike, *, max_fpr: float) -> float:
    """Share of positives caught when at most `max_fpr` of these negatives may raise an alarm.

    The threshold comes from the same negatives, so with fewer than 1 / `max_fpr` of them no negative may alarm. For a rate
    that holds on new data, take `threshold_at_fpr` of held-out negatives.

    Raises:
        UsageError: no scores, NaN, one class only, or `max_fpr` outside [0, 1].
    """
    positives, negatives = _by_class(scores, labels)
    return float(np.mean(positives > threshold_at_fpr(negatives, max_fpr=max_fpr)))


def _by_class(scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    values = numbers(scores, name="scores")
    truth = two_classes(labels, n=len(values))
    return values[truth == 1], values[truth == 0]


def _newcombe(area: float, n_positive: int, n_negative: int, *, level: float) -> tuple[float, float]:
    """The areas whose Hanley-McNeil standard error puts the observed one just within reach."""
    from scipy.optimize import root_scalar
    from scipy.special import ndtri

    z = float(ndtri(0.5 + level_in_unit(level) / 2))
    n_mean = (n_positive + n_negative) / 2 - 1

    def excess(theta: float) -> float:
        spread = 1 + n_mean * (1 - theta) / (2 - theta) + n_mean * theta / (1 + theta)
        return (theta - area) ** 2 - z**2 * theta * (1 - theta) * spread / (n_positive * n_negative)

    # At an area of exactly 0 or 1 the equation has a second, empty root there.
    inside = min(max(area, 1e-12), 1 - 1e-12)
    low = 0.0 if area == 0.0 else root_scalar(excess, bracket=(0.0, inside)).root
    high = 1.0 if area == 1.0 else root_scalar(excess, bracket=(inside, 1.0)).root
    return float(low), float(high)

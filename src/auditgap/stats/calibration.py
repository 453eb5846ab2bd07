"""Does a probability mean what it says? Scores turned into probabilities, and how far those are from the frequencies.

Source: J. Platt, Probabilistic Outputs for Support Vector Machines (1999); M. P. Naeini et al., AAAI 2015 (expected calibration
error); G. W. Brier, Monthly Weather Review 78 (1950) 1-3. Bins of equal mass: K. Nguyen, B. O'Connor, arXiv:1508.05154.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

from auditgap.errors import UsageError
from auditgap.stats.checks import numbers, two_classes

__all__ = ["Platt", "brier", "equal_mass_bins", "expected_calibration_error", "fit_platt", "perfect_calibration"]


class Platt(NamedTuple):
    """P(label 1 | score) = 1 / (1 + exp(-(slope * score + intercept)))."""

    slope: float
    intercept: float

    def probabilities(self, scores: ArrayLike) -> NDArray[np.float64]:
        """The probability of label 1 for each score."""
        return expit(self.slope * numbers(scores, name="scores") + self.intercept)


def fit_platt(scores: ArrayLike, labels: ArrayLike) -> Platt:
    """The logistic curve of the label on the score, with Platt's targets.

    Each row counts as `(n + 1) / (n + 2)` of its own class, n being the rows of that class, and for the rest as the other:
    without it, classes that the scores separate would get the probabilities 0 and 1. Fit it on rows that the score did not see.

    Raises:
        UsageError: no scores, NaN, infinity, or only one class.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import, and most commands need no probability

    values = numbers(scores, name="scores")
    truth = two_classes(labels, n=len(values))
    if not np.isfinite(values).all():
        raise UsageError("scores: expected finite numbers, got infinity; find where it arises, do not drop it")
    n_own = np.bincount(truth)[truth]
    own = (n_own + 1) / (n_own + 2)
    centre, spread = values.mean(), values.std() or 1.0
    z = np.tile((values - centre) / spread, 2)[:, None]
    curve = LogisticRegression(C=np.inf, tol=1e-8, max_iter=1000).fit(
        z, np.concatenate([truth, 1 - truth]), sample_weight=np.concatenate([own, 1 - own])
    )
    slope = float(curve.coef_[0, 0] / spread)
    return Platt(slope, float(curve.intercept_[0] - slope * centre))


def brier(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Mean squared difference between probability and label.

    0 is perfect; always saying one half reads 0.25, and always saying the share p of label 1 reads p (1 - p).

    Raises:
        UsageError: as `expected_calibration_error`.
    """
    p, truth = _checked(probabilities, labels)
    return float(np.mean((p - truth) ** 2))


def equal_mass_bins(probabilities: ArrayLike, *, n_bins: int = 10) -> NDArray[np.intp]:
    """Which bin each probability falls into, from 0 up: bins hold equally many rows, except that equal values stay together.

    Raises:
        UsageError: no probabilities, NaN, one outside [0, 1], or fewer than one bin.
    """
    p = _in_unit(probabilities)
    if n_bins < 1:
        raise UsageError(f"n_bins: expected at least 1, got {n_bins}")
    first_rank = np.searchsorted(np.sort(p), p, side="left")
    return np.unique(first_rank * n_bins // len(p), return_inverse=True)[1]


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, *, n_bins: int = 10) -> float:
    """Mean distance between probability and frequency over bins of equal mass, weighted by their rows.

    0 is perfect. Chance alone keeps it above 0: read it beside `perfect_calibration` for as many rows.

    Raises:
        UsageError: as `equal_mass_bins`; or labels that are not 0 and 1, or not one for each.
    """
    p, truth = _checked(probabilities, labels)
    return _error(p, truth, equal_mass_bins(p, n_bins=n_bins))


def perfect_calibration(probabilities: ArrayLike, *, n_bins: int = 10, n_draws: int = 2000, seed: int) -> NDArray[np.float64]:
    """The calibration error that these probabilities would read by chance if they were true, once for each draw of labels.

    Raises:
        UsageError: as `equal_mass_bins`, or fewer than one draw.
    """
    p = _in_unit(probabilities)
    if n_draws < 1:
        raise UsageError(f"n_draws: expected at least 1, got {n_draws}")
    bins, rng = equal_mass_bins(p, n_bins=n_bins), np.random.default_rng(seed)
    return np.array([_error(p, (rng.random(len(p)) < p).astype(np.float64), bins) for _ in range(n_draws)])


def _error(p: NDArray[np.float64], truth: NDArray[np.float64], bins: NDArray[np.intp]) -> float:
    return float(np.abs(np.bincount(bins, weights=p - truth)).sum() / len(p))


def _checked(probabilities: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    p, truth = _in_unit(probabilities), np.asarray(labels)
    if truth.shape != p.shape or not np.isin(truth, (0, 1)).all():
        raise UsageError(f"labels: expected 0 or 1 for each of {len(p)} probabilities, got shape {truth.shape}")
    return p, truth.astype(np.float64)


def _in_unit(probabilities: ArrayLike) -> NDArray[np.float64]:
    p = numbers(probabilities, name="probabilities")
    if p.min() < 0.0 or p.max() > 1.0:
        raise UsageError(f"probabilities: expected numbers between 0 and 1, got {p.min()} to {p.max()}")
    return p

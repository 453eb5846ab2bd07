"""Have two samples the same distribution? Energy distance, and its permutation test for whole batches.

For a stream that is watched event by event use `auditgap.stats.drift`.

Source: G. J. Szekely, M. L. Rizzo, Journal of Statistical Planning and Inference 143 (2013) 1249-1272.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditgap.errors import UsageError
from auditgap.stats.checks import group_codes
from auditgap.stats.permutation import permute_labels

__all__ = ["EnergyTest", "energy_distance", "energy_permutation_test"]

MAX_ROWS = 8192  # the distances between all pairs are held in memory: 512 MiB at this size


class EnergyTest(NamedTuple):
    """What a permutation test of the energy distance found."""

    p: float
    """The chance of a distance this large where there is no difference; never below 1 / (1 + n_permutations)."""
    statistic: float
    """The energy distance."""


def energy_distance(x: ArrayLike, y: ArrayLike) -> float:
    """Squared energy distance: 2 E|X - Y| - E|X - X'| - E|Y - Y'|, over all pairs of rows.

    0 if and only if the two samples hold the same rows in the same shares; in the units of the data. Scale the columns first, or
    the widest decides.

    Raises:
        UsageError: no rows, different widths, more than 8192 rows together, NaN or infinity.
    """
    rows, n = _together(x, y)
    return _statistic(_distances(rows), np.arange(len(rows)) < n)


def energy_permutation_test(
    x: ArrayLike, y: ArrayLike, *, groups: Sequence[object] | None = None, n_permutations: int = 999, seed: int
) -> EnergyTest:
    """The energy distance and its p-value: how often a relabelling of the rows gives one as large.

    `groups` names the group of each row of `x`, then of each row of `y`; rows of a group are not independent and are relabelled
    as `permute_labels` says.

    Raises:
        UsageError: as `energy_distance`; another number of groups than rows; no permutations.
    """
    if n_permutations < 1:
        raise UsageError(f"n_permutations: expected at least 1, got {n_permutations}")
    rows, n = _together(x, y)
    distances = _distances(rows)
    labels = (np.arange(len(rows)) >= n).astype(np.int64)
    codes = group_codes(groups if groups is not None else range(len(rows)), n=len(rows))
    observed, rng = _statistic(distances, labels == 0), np.random.default_rng(seed)
    null = np.array([_statistic(distances, permute_labels(labels, codes, rng) == 0) for _ in range(n_permutations)])
    ties = 1e-12 * distances.mean()  # sums of another order differ by rounding, and ties count against the finding
    return EnergyTest(float((1 + np.count_nonzero(null >= observed - ties)) / (1 + n_permutations)), observed)


def _together(x: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], int]:
    """All rows, and how many are of `x`."""
    a, b = (_rows(values, name) for values, name in ((x, "x"), (y, "y")))
    if a.shape[1] != b.shape[1]:
        raise UsageError(f"expected two samples of one width, got {a.shape[1]} and {b.shape[1]} columns")
    if len(a) + len(b) > MAX_ROWS:
        raise UsageError(f"expected at most {MAX_ROWS} rows together, got {len(a) + len(b)}; draw a random subset of each")
    return np.concatenate([a, b]), len(a)


def _rows(values: ArrayLike, name: str) -> NDArray[np.float64]:
    try:
        rows = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: expected numbers, got {error}") from None
    rows = rows[:, None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or not rows.size or not np.isfinite(rows).all():
        raise UsageError(f"{name}: expected at least one row of finite numbers, got shape {rows.shape} or NaN or infinity")
    return rows


def _distances(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.spatial.distance import cdist

    return np.asarray(cdist(rows, rows), dtype=np.float64)


def _statistic(distances: NDArray[np.float64], is_x: NDArray[np.bool_]) -> float:
    """u' D u with the sign turned, u being 1/n on x and -1/m on y."""
    u = np.where(is_x, 1 / np.count_nonzero(is_x), -1 / np.count_nonzero(~is_x))
    return max(0.0, -float(u @ distances @ u))

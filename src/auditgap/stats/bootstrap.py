"""Intervals for any statistic, from resampling groups of rows.

1. Rows of one group are not independent (two wordings of one request), so whole groups are drawn, with replacement.
2. The statistic is computed on each resample; a resample on which it has no value is drawn again, up to a limit.
3. The interval runs between the percentiles of what came out.

Source: B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapters 8 and 13;
A. C. Davison, D. V. Hinkley, Bootstrap Methods and their Application (1997), section 3.8.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from auditgap.errors import CannotMeasure, UsageError
from auditgap.records import Interval
from auditgap.stats.checks import group_codes, level_in_unit

__all__ = ["cluster_bootstrap"]

MAX_REDRAWN = 0.5  # share of draws that may be degenerate before the interval would describe a different question


def cluster_bootstrap(
    statistic: Callable[[NDArray[np.intp]], float],
    groups: Sequence[object] | NDArray[np.generic],
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    seed: int,
) -> Interval:
    """Where a statistic lies, given that groups and not rows are the independent units.

    `statistic` receives row indices (with repeats) and returns a number. A resample on which it returns NaN, or refuses with
    `UsageError` (an AUROC that drew one class only), is drawn again. With few groups the interval is too short: its 95 % held the
    mean of normal groups in 83, 89, 90 and 93 % of 400 simulations with 5, 10, 20 and 40 groups. It has no width where the
    statistic cannot vary, as an AUROC of exactly 1 cannot (use `auroc_interval`), nor a rate of 0 (use `clopper_pearson`).

    Raises:
        UsageError: fewer than two groups, or the statistic has no value on the data itself.
        CannotMeasure: the statistic has no value on most resamples.
    """
    codes = group_codes(groups)
    n_groups = int(codes.max()) + 1
    if n_groups < 2:
        raise UsageError(f"expected at least 2 groups to resample, got {n_groups}; nothing can be said of the spread of one")
    if n_resamples < 1:
        raise UsageError(f"n_resamples: expected at least 1, got {n_resamples}")
    tail = (1.0 - level_in_unit(level)) / 2
    if math.isnan(statistic(np.arange(len(codes)))):
        raise UsageError("the statistic is NaN on the data itself; expected a number")

    by_group = np.argsort(codes, kind="stable")
    rows_of = np.split(by_group, np.cumsum(np.bincount(codes))[:-1])
    alone = n_groups == len(codes)
    rng = np.random.default_rng(seed)
    values: list[float] = []
    n_degenerate = 0
    while len(values) < n_resamples:
        drawn = rng.integers(n_groups, size=n_groups)
        rows = by_group[drawn] if alone else np.concatenate([rows_of[code] for code in drawn])
        value = _value(statistic, rows)
        if math.isnan(value):
            n_degenerate += 1
            if n_degenerate > MAX_REDRAWN / (1 - MAX_REDRAWN) * n_resamples:
                raise CannotMeasure(
                    f"the statistic had no value on {n_degenerate} of {n_degenerate + len(values)} resamples "
                    f"of {n_groups} groups; give it more groups of each class"
                )
        else:
            values.append(value)
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return Interval(low=float(low), high=float(high), level=level, method="cluster-bootstrap")


def _value(statistic: Callable[[NDArray[np.intp]], float], rows: NDArray[np.intp]) -> float:
    """The statistic on a resample; NaN where it refuses. It did not refuse the data itself, so the resample is to blame."""
    try:
        return float(statistic(rows))
    except UsageError:
        return math.nan

"""Rates whose rows come in groups: shared by every instrument that counts."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from auditgap.errors import UsageError
from auditgap.records import Interval
from auditgap.stats.intervals import clopper_pearson

__all__ = ["GroupRate", "group_rate"]


class GroupRate(NamedTuple):
    """A rate in which each group counts once."""

    value: float
    n_groups: int
    interval: Interval


def group_rate(hits: ArrayLike, groups: Sequence[str], *, level: float = 0.95) -> GroupRate:
    """Share of hits, averaged within each group and then over groups.

    The interval is Clopper-Pearson on the number of groups, as if the rows of a group were copies of each other: exact when each
    group holds one row, too wide (never too short) when the rows of a group disagree. A sum of group shares that is no whole
    number is rounded down for the low end and up for the high end.

    Raises:
        UsageError: no rows, another number of groups than rows, or a hit outside [0, 1].
    """
    values = np.asarray(hits, dtype=np.float64)
    if values.ndim != 1 or len(values) == 0 or len(values) != len(groups):
        raise UsageError(f"expected one hit per row and at least one row, got shape {values.shape} and {len(groups)} groups")
    if not ((values >= 0.0) & (values <= 1.0)).all():
        raise UsageError(f"hits: expected 0, 1 or a share between them, got {values.min()} to {values.max()}")
    _, codes, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    total, n = float((np.bincount(codes, weights=values) / sizes).sum()), len(sizes)
    low = clopper_pearson(math.floor(total + 1e-9), n, level=level).low
    high = clopper_pearson(math.ceil(total - 1e-9), n, level=level).high
    return GroupRate(total / n, n, Interval(low=low, high=high, level=level, method="clopper-pearson-groups"))

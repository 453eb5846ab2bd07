"""What every statistic asks of its input, and the words it refuses with."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditgap.errors import UsageError

__all__ = ["group_codes", "level_in_unit", "numbers", "two_classes"]


def numbers(values: ArrayLike, *, name: str) -> NDArray[np.float64]:
    """`values` as a one-axis array without NaN; infinities may stay, they can be ranked.

    Raises:
        UsageError: it is empty, not numeric, has another shape, or holds NaN.
    """
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: expected numbers, got {error}") from None
    if array.ndim != 1 or array.size == 0:
        raise UsageError(f"{name}: expected at least one number in one axis, got shape {array.shape}")
    if np.isnan(array).any():
        raise UsageError(
            f"{name}: expected numbers, got NaN at position {int(np.flatnonzero(np.isnan(array))[0])}; "
            "find where it arises, do not drop it"
        )
    return array


def two_classes(labels: ArrayLike, *, n: int | None = None) -> NDArray[np.int64]:
    """`labels` as an array of 0 and 1 in which both occur.

    Raises:
        UsageError: none, not `n` of them, another value, or one class only.
    """
    array = np.asarray(labels)
    if array.ndim != 1 or array.size == 0 or (n is not None and array.size != n):
        raise UsageError(f"labels: expected {n or 'at least one'}, one per row, got shape {array.shape}")
    found = np.unique(array)
    if found.dtype.kind not in "biuf" or not np.isin(found, (0, 1)).all():
        raise UsageError(f"labels: expected 0 and 1, got {found[:5].tolist()}")
    if len(found) != 2:
        raise UsageError(
            f"labels: expected both classes, got only {int(found[0])} in {array.size} rows; add rows of the other class"
        )
    return array.astype(np.int64)


def group_codes(groups: Sequence[object] | NDArray[np.generic], *, n: int | None = None) -> NDArray[np.intp]:
    """Each row's group as a number from 0, in order of first appearance.

    Raises:
        UsageError: there are no rows, or not `n` of them.
    """
    groups = list(groups)
    if not groups or (n is not None and len(groups) != n):
        raise UsageError(f"groups: expected {n or 'at least one'}, one per row, got {len(groups)}")
    number = {group: code for code, group in enumerate(dict.fromkeys(groups))}
    return np.array([number[group] for group in groups], dtype=np.intp)


def level_in_unit(level: float) -> float:
    """`level`, if it is a coverage between 0 and 1.

    Raises:
        UsageError: it is not.
    """
    if not 0.0 < level < 1.0:
        raise UsageError(f"level: expected a coverage between 0 and 1, such as 0.95, got {level}")
    return level

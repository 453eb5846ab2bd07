"""Several tests at once."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditgap.errors import UsageError
from auditgap.stats.checks import numbers

__all__ = ["holm"]


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p-values, in the order given.

    Reject those at or below alpha, and the chance of any false rejection is at most alpha, however the tests depend on each
    other. Where the tests are one search over a grid, `max_statistic_p` has more power.

    Raises:
        UsageError: no p-values, NaN, or one outside [0, 1].

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.
    """
    p = numbers(p_values, name="p_values")
    if p.min() < 0.0 or p.max() > 1.0:
        raise UsageError(f"p_values: expected numbers between 0 and 1, got {p.min()} to {p.max()}")
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted

"""How far a weighted sum of independent rates can lie from what was counted: a shift between releases, the effect of a swap.

1. Each rate has its Clopper-Pearson interval.
2. The interval of the sum comes from all of them by square-and-add: a rate with a positive weight adds the distance to its low
   end to the low side and that to its high end to the high side; one with a negative weight the other way round.

Source: G. Y. Zou, A. Donner, Statistics in Medicine 27 (2008) 1693-1702, and R. G. Newcombe, Statistics in Medicine 17 (1998)
873-890 (both unverified).
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from auditgap.errors import UsageError
from auditgap.records import Interval
from auditgap.stats.intervals import clopper_pearson

__all__ = ["Contrast", "contrast"]


class Contrast(NamedTuple):
    """A weighted sum of rates and where it lies."""

    value: float
    interval: Interval

    @property
    def shown(self) -> bool:
        """True if the interval leaves out 0."""
        return self.interval.low > 0.0 or self.interval.high < 0.0


def contrast(counts: Sequence[tuple[int, int]], weights: Sequence[float], *, level: float = 0.95) -> Contrast:
    """The weighted sum of rates, from (hits, trials) of each: weights of +1 and -1 are the shift between two releases.

    Raises:
        UsageError: another number of weights than rates, none, no trials, or more hits than trials.
    """
    if len(counts) != len(weights) or not counts:
        raise UsageError(f"expected one weight per rate and at least one, got {len(weights)} weights and {len(counts)} rates")
    value = below = above = 0.0
    for (hits, n), weight in zip(counts, weights, strict=True):
        interval = _rate(hits, n, level)
        rate = hits / n
        down, up = weight * (rate - interval.low), weight * (interval.high - rate)
        value += weight * rate
        below, above = math.hypot(below, max(down, -up)), math.hypot(above, max(up, -down))
    method = "square-and-add-clopper-pearson"
    return Contrast(value, Interval(low=value - below, high=value + above, level=level, method=method))


@lru_cache(maxsize=1024)
def _rate(hits: int, n: int, level: float) -> Interval:
    """The interval of one rate; the effects of a swap ask for the same ones again and again."""
    return clopper_pearson(hits, n, level=level)

"""An interval for a mean that holds at every moment of a stream, so also at the moment when an alarm stopped it."""

import math
from collections.abc import Callable

from auditgap.errors import UsageError
from auditgap.records import Interval
from auditgap.stats.checks import level_in_unit

__all__ = ["confidence_sequence"]


def confidence_sequence(total: float, n: int, *, level: float = 0.95) -> Interval:
    """Where the mean of events in [0, 1] lies, from their sum and number; holds for all n at once with chance `level`.

    The mean of each event given those before must be one constant; nothing else is asked. It is the set of means against which a
    mixture of bets (Beta(1/2, 1/2) over the alternative) never won 1 / (1 - level). Wider than `clopper_pearson` at any one n.

    Raises:
        UsageError: no events, or a sum outside [0, n].

    Source: H. Robbins, Ann. Math. Stat. 41 (1970) 1397-1409; S. Howard, A. Ramdas, J. McAuliffe, J. Sekhon, arXiv:1810.08240.
    """
    if n < 1 or not 0.0 <= total <= n:
        raise UsageError(f"expected at least one event and a sum between 0 and their number, got a sum of {total} over {n}")
    bar = -math.log1p(-level_in_unit(level))
    mixture = _log_beta(0.5 + total, 0.5 + n - total) - _log_beta(0.5, 0.5)

    def refused(mean: float) -> bool:
        hits = total * math.log(mean) if total else 0.0
        return mixture - hits - ((n - total) * math.log1p(-mean) if total < n else 0.0) >= bar

    centre = total / n
    low = _edge(refused, 0.0, centre) if total else 0.0
    high = _edge(refused, 1.0, centre) if total < n else 1.0
    return Interval(low=low, high=high, level=level, method="beta-binomial-sequence")


def _edge(refused: Callable[[float], bool], outside: float, inside: float) -> float:
    """Where refused means begin between a refused end and a kept one, rounded outwards."""
    for _ in range(60):
        middle = (outside + inside) / 2
        if middle in (outside, inside):
            break
        outside, inside = (middle, inside) if refused(middle) else (outside, middle)
    return outside


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

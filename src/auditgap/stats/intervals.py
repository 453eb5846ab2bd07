"""Intervals for a rate: how far a count of successes pins down the chance behind it."""

import math
from numbers import Integral
from typing import Literal

from auditgap.errors import UsageError
from auditgap.records import Interval
from auditgap.stats.checks import level_in_unit

__all__ = ["clopper_pearson", "wilson", "zero_event_upper_bound"]


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Where a rate lies, by Wilson's score interval: right on average over rates, too short for some.

    Use it to describe. Where a bound must hold whatever the rate is (a gate, a false-alarm limit), use `clopper_pearson`.

    Raises:
        UsageError: no trials, or more successes than trials.

    Source: E. B. Wilson, JASA 22 (1927) 209-212; L. D. Brown, T. T. Cai, A. DasGupta, Statistical Science 16 (2001) 101-133.
    """
    return _binomial(successes, n, level=level, method="wilson", name="wilson")


def clopper_pearson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Where a rate lies, by the exact binomial interval: covers at least `level` whatever the rate is.

    Raises:
        UsageError: no trials, or more successes than trials.

    Source: C. J. Clopper, E. S. Pearson, Biometrika 26 (1934) 404-413.
    """
    return _binomial(successes, n, level=level, method="exact", name="clopper-pearson")


def zero_event_upper_bound(n: int, level: float = 0.95) -> float:
    """The highest rate that still leaves a chance of `1 - level` of seeing nothing in `n` independent trials.

    One-sided and exact: 1 - (1 - level)^(1/n), near 3/n at 95 %. "Not found in 100 prompts" bounds the rate at 2.95 %, not at 0.

    Raises:
        UsageError: no trials.

    Source: J. A. Hanley, A. Lippman-Hand, JAMA 249 (1983) 1743-1745.
    """
    _count("n", n, at_least=1)
    return -math.expm1(math.log1p(-level_in_unit(level)) / n)


def _binomial(successes: int, n: int, *, level: float, method: Literal["wilson", "exact"], name: str) -> Interval:
    from scipy.stats import binomtest  # half a second to import, and most commands need no interval

    _count("n", n, at_least=1)
    _count("successes", successes, at_least=0)
    if successes > n:
        raise UsageError(f"expected at most n={n} successes, got {successes}")
    bounds = binomtest(successes, n).proportion_ci(confidence_level=level_in_unit(level), method=method)
    return Interval(low=float(bounds.low), high=float(bounds.high), level=level, method=name)


def _count(name: str, value: int, *, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < at_least:
        raise UsageError(f"{name}: expected a whole number of at least {at_least}, got {value!r}")

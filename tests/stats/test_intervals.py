"""Intervals for a rate: against beta quantiles and the closed form, and the coverage they promise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from auditgap.errors import UsageError
from auditgap.stats import clopper_pearson, wilson, zero_event_upper_bound

counts = st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99])


@given(counts, levels)
def test_clopper_pearson_is_the_beta_quantile(count, level):
    successes, n = count
    interval = clopper_pearson(successes, n, level=level)
    tail = (1 - level) / 2
    low = 0.0 if successes == 0 else beta.ppf(tail, successes, n - successes + 1)
    high = 1.0 if successes == n else beta.ppf(1 - tail, successes + 1, n - successes)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=1e-9)
    assert (interval.level, interval.method) == (level, "clopper-pearson")


@given(counts)
def test_wilson_is_the_closed_form(count):
    successes, n = count
    z, share = 1.959963984540054, successes / n
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    interval = wilson(successes, n)
    assert (interval.low, interval.high) == pytest.approx((centre - half, centre + half), abs=1e-9)


@given(counts)
def test_swapping_success_and_failure_mirrors_the_interval(count):
    successes, n = count
    for method in (wilson, clopper_pearson):
        there, back = method(successes, n), method(n - successes, n)
        assert (there.low, there.high) == pytest.approx((1 - back.high, 1 - back.low), abs=1e-9)


@pytest.mark.parametrize("rate", [0.003, 0.05, 0.31, 0.5, 0.97])
@pytest.mark.parametrize("n", [5, 40])
def test_clopper_pearson_covers_whatever_the_rate_is_and_wilson_does_on_average(rate, n):
    chances = binom.pmf(np.arange(n + 1), n, rate)

    def coverage(method):
        held = [method(k, n).low <= rate <= method(k, n).high for k in range(n + 1)]
        return float(chances @ np.array(held))

    assert coverage(clopper_pearson) >= 0.95
    assert coverage(wilson) >= 0.83  # its known worst case near 0 and 1 (Brown, Cai and DasGupta 2001)


@given(st.integers(1, 10_000), levels)
def test_zero_events_leave_the_rate_at_which_nothing_is_just_plausible(n, level):
    bound = zero_event_upper_bound(n, level)
    assert (1 - bound) ** n == pytest.approx(1 - level, rel=1e-9)
    if level > 0.5:  # the upper end of a two-sided interval with twice the tail
        assert bound == pytest.approx(clopper_pearson(0, n, level=2 * level - 1).high, abs=1e-9)


def test_rule_of_three():
    assert zero_event_upper_bound(100) == pytest.approx(0.0295, abs=5e-5)


@pytest.mark.parametrize(
    ("successes", "n", "level", "message"),
    [
        (0, 0, 0.95, "n: expected a whole number of at least 1, got 0"),
        (-1, 5, 0.95, "successes: expected a whole number of at least 0"),
        (6, 5, 0.95, "expected at most n=5 successes, got 6"),
        (1.5, 5, 0.95, "successes: expected a whole number"),
        (True, 5, 0.95, "successes: expected a whole number"),
        (1, 5, 95, "level: expected a coverage between 0 and 1"),
        (1, 5, math.nan, "level: expected a coverage"),
    ],
)
def test_bad_counts_are_refused(successes, n, level, message):
    for method in (wilson, clopper_pearson):
        with pytest.raises(UsageError, match=message):
            method(successes, n, level=level)


def test_zero_events_of_nothing_are_refused():
    with pytest.raises(UsageError, match="n: expected a whole number of at least 1"):
        zero_event_upper_bound(0)

"""A shift of the margin is rarely called equivalent, no shift is with enough trials, and few trials show nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from auditgap.errors import UsageError
from auditgap.release.parity import equivalence


@pytest.mark.parametrize(("hits", "n", "margin"), [(2, 200, 0.05), (0, 150, 0.05), (392, 400, 0.05), (50, 600, 0.1)])
def test_the_same_rate_with_enough_trials_is_equivalent(hits: int, n: int, margin: float) -> None:
    found = equivalence("refusal", before=(hits, n), after=(hits, n), margin=margin)
    assert found.verdict == "equivalent" and found.shift == 0.0
    assert -margin < found.interval.low < 0.0 < found.interval.high < margin


@pytest.mark.parametrize(
    ("before", "after"),
    [((10, 1000), (120, 1000)), ((120, 1000), (10, 1000)), ((0, 20), (0, 20)), ((1, 2), (1, 2)), ((9, 10), (90, 100))],
)
def test_a_shift_or_too_few_trials_show_nothing(before: tuple[int, int], after: tuple[int, int]) -> None:
    assert equivalence("refusal", before=before, after=after, margin=0.05).verdict == "not-shown"


@pytest.mark.parametrize(("n_before", "n_after", "margin"), [(20, 20, 0.35), (15, 25, 0.4)])
def test_a_shift_of_the_margin_is_rarely_called_equivalent(n_before: int, n_after: int, margin: float) -> None:
    """In at most one case of twenty, for every pair of rates that lie exactly the margin apart."""

    def called(a: int, b: int) -> bool:
        if abs(a / n_before - b / n_after) >= margin:  # the interval holds the shift itself
            return False
        return equivalence("x", before=(a, n_before), after=(b, n_after), margin=margin).verdict == "equivalent"

    table = np.array([[called(a, b) for b in range(n_after + 1)] for a in range(n_before + 1)])

    def chance(rate: float) -> float:
        before, after = np.arange(n_before + 1), np.arange(n_after + 1)
        return float(binom.pmf(before, n_before, rate) @ table @ binom.pmf(after, n_after, rate + margin))

    assert table.any() and 0.005 < max(chance(rate) for rate in np.linspace(0.0, 1.0 - margin, 101)) <= 0.05


@settings(max_examples=30, deadline=None)
@given(n=st.integers(1, 60), m=st.integers(1, 60), data=st.data())
def test_the_two_sides_are_treated_alike(n: int, m: int, data: st.DataObject) -> None:
    a, b = data.draw(st.integers(0, n)), data.draw(st.integers(0, m))
    one = equivalence("x", before=(a, n), after=(b, m), margin=0.2)
    other = equivalence("x", before=(b, m), after=(a, n), margin=0.2)
    mirrored = equivalence("x", before=(n - a, n), after=(m - b, m), margin=0.2)
    assert one.verdict == other.verdict == mirrored.verdict
    assert one.interval.low == pytest.approx(-other.interval.high) and one.interval.low == pytest.approx(-mirrored.interval.high)


@pytest.mark.parametrize(
    ("before", "after", "margin", "alpha"),
    [
        ((0, 0), (1, 2), 0.1, 0.05),
        ((3, 2), (1, 2), 0.1, 0.05),
        ((1, 2), (1, 2), 0.0, 0.05),
        ((1, 2), (1, 2), 1.0, 0.05),
        ((1, 2), (1, 2), 0.1, 0.5),
    ],
)
def test_what_is_no_test_is_refused(before: tuple[int, int], after: tuple[int, int], margin: float, alpha: float) -> None:
    with pytest.raises(UsageError, match="expected"):
        equivalence("x", before=before, after=after, margin=margin, alpha=alpha)

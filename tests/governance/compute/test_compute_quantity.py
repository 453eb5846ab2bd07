"""Amounts as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from auditgap.governance.compute.quantity import Estimate, Flop, Peak, Share, Tokens, Weights, plus, show, times

AMOUNTS = st.floats(min_value=0, max_value=1e30, allow_nan=False)


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    low, mid, high = sorted((draw(AMOUNTS), draw(AMOUNTS), draw(AMOUNTS)))
    return Estimate(low=low, mid=mid, high=high)


@pytest.mark.parametrize(
    ("kind", "written", "value"),
    [
        (Tokens, "14.8T", 14.8e12),
        (Tokens, "14.8T tokens", 14.8e12),
        (Tokens, "36e12", 36e12),
        (Tokens, "3 tokens", 3),
        (Tokens, "3t", 3e12),
        (Weights, "7b", 7e9),
        (Tokens, "1,000,000", 1e6),
        (Tokens, "2_500", 2500),
        (Tokens, 10, 10),
        (Weights, "671B", 671e9),
        (Weights, "0.6B parameters", 0.6e9),
        (Flop, "1.4e25", 1.4e25),
        (Flop, "1.4e+25 FLOP", 1.4e25),
        (Flop, 1.4e25, 1.4e25),
        (Peak, "989 TFLOP/s", 989e12),
        (Peak, "2P", 2e15),
        (Share, "40 %", 0.4),
        (Share, 0.4, 0.4),
    ],
)
def test_readable_amounts_are_read(kind: object, written: object, value: float) -> None:
    found = TypeAdapter(kind).validate_python(written)
    assert found.low == found.mid == found.high == pytest.approx(value, rel=1e-12)


def test_a_range_has_three_values() -> None:
    found = TypeAdapter(Tokens).validate_python({"low": "14T", "mid": "14.8T", "high": 15e12})
    assert (found.low, found.mid, found.high) == (14e12, 14.8e12, 15e12)


@pytest.mark.parametrize(
    ("kind", "written", "said"),
    [
        (Tokens, "many", "expected a number of tokens, such as 14.8T"),
        (Tokens, "-3", "expected a number of tokens"),
        (Tokens, "1,5T", "expected a number of tokens"),
        (Tokens, "3 FLOP", "and no unit but tokens"),
        (Tokens, "3kk", "at most one of k, M, B, T, P"),
        (Tokens, "_3", "expected a number of tokens"),
        (Tokens, True, "expected a number of tokens"),
        (Tokens, [1, 2], "write one number, or {low, mid, high}"),
        (Tokens, {"low": 1, "high": 2}, "expected low, mid and high, got low, high; give all three"),
        (Tokens, {"low": 3, "mid": 2, "high": 4}, "expected 0 <= low <= mid <= high"),
        (Tokens, "nan", "expected a number of tokens"),
        (Flop, "1e999", "too large"),
        (Flop, "1e41", "too large"),
        (Share, 30, "a share lies above 0 and is at most 1"),
        (Share, "0", "a share lies above 0"),
        (Peak, "989 TFLOP", "and no unit but FLOP/s"),
    ],
)
def test_anything_else_is_refused_with_an_example(kind: object, written: object, said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(written)
    assert said in str(caught.value)


@given(estimates(), estimates())
def test_sums_and_products_keep_their_order(a: Estimate, b: Estimate) -> None:
    for found in (plus(a, b), times(a, b)):  # building an Estimate checks low <= mid <= high
        assert found.low <= found.mid <= found.high
    assert plus(a, b).mid >= a.mid


def test_the_empty_sum_is_zero() -> None:
    assert plus() == Estimate.of(0.0)


@pytest.mark.parametrize(
    ("value", "text"), [(1.08e23, "1.08e23"), (0, "0"), (9.999e24, "1.00e25"), (3.5, "3.50e0"), (4e-3, "4.00e-3")]
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert show(value) == text

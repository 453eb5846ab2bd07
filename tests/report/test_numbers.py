"""Numbers, bars and text as a reader sees them."""

import datetime as dt

import pytest
from example_audit import make_audit
from hypothesis import given
from hypothesis import strategies as st

from auditgap.records import Interval, Measured
from auditgap.report.charts import gap_bars, interval_bar
from auditgap.report.numbers import duration, full, short, visible


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (1.0, "1"),
        (0.95, "0.95"),
        (0.9496, "0.950"),
        (0.931234, "0.931"),
        (-2.8719, "-2.87"),
        (12.3456, "12.3"),
        (123.456, "123"),
        (12345.6, "12,300"),
        (4096.0, "4,096"),
        (0.00123456, "0.00123"),
        (4.76837158203125e-07, "4.77e-7"),
        (1e-05, "1.00e-5"),
        (1.5e9, "1.50e9"),
        (0.9999, "1.00"),
        (999_999.5, "1,000,000"),
    ],
)
def test_short_numbers(value: float, shown: str) -> None:
    assert short(value) == shown


@given(st.floats(-1e300, 1e300))
def test_short_is_within_half_a_percent_and_full_is_exact(value: float) -> None:
    assert float(short(value).replace(",", "")) == pytest.approx(value, rel=5.1e-3, abs=0)
    assert float(full(value)) == value


@given(st.text())
def test_visible_text_holds_no_character_that_hides_or_reorders(text: str) -> None:
    shown = visible(text)
    assert not set(shown) & set("\u202e\u202d\u2066\u2067\u2069\u200b\u200e\u200f\ufeff\x00\x1b\x7f\u2028")
    assert visible(shown) == shown


def test_visible_leaves_ordinary_text_alone() -> None:
    ordinary = "Grüße, 漢字, עברית, नमस्ते, 👩‍🔬\n\tline"
    assert visible(ordinary) == ordinary


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0 s"), (42, "42 s"), (-240, "4 min"), (10_800, "3 h"), (400_000, "4 days")])
def test_duration(seconds: int, shown: str) -> None:
    assert duration(dt.timedelta(seconds=seconds)) == shown


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), st.lists(st.floats(-1e6, 1e6), max_size=2))
def test_interval_bars_keep_order_and_stay_on_the_line(points: list[float], bars: list[float]) -> None:
    low, value, high = sorted(points)
    m = Measured(name="x", value=value, unit="u", n=1, interval=Interval(low=low, high=high, level=0.95, method="m"))
    bar = interval_bar(m, tuple(bars))
    assert -1e-6 <= bar.low <= bar.value + 1e-6 <= bar.high + 2e-6 <= 100 + 4e-6
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in bar.bars)
    assert bar.start <= low and high <= bar.end


@pytest.mark.parametrize(
    ("low", "high", "ends"), [(0.97, 0.98, (0.9, 1)), (0.02, 0.04, (0, 0.1)), (0.3, 0.7, (0, 1)), (3.1, 3.7, (0, 5))]
)
def test_interval_bars_choose_the_narrowest_round_scale(low: float, high: float, ends: tuple[float, float]) -> None:
    m = Measured(name="x", value=low, unit="u", n=1, interval=Interval(low=low, high=high, level=0.95, method="m"))
    assert (interval_bar(m).start, interval_bar(m).end) == ends


def test_gap_bars_fill_exactly_up_to_what_is_required() -> None:
    bars = [bar for _, a in make_audit("hold").assessments for bar in gap_bars(a)]
    assert any(bar.structural for bar in bars) and any(bar.execution for bar in bars)
    for bar in bars:
        if bar.achieved < bar.required:
            assert bar.achieved + bar.execution + bar.structural == pytest.approx(bar.required)
        else:
            assert bar.execution == bar.structural == 0
        assert 0 <= bar.achieved <= 100 and 0 < bar.required <= 100


def test_axes_without_a_requirement_have_no_bar() -> None:
    no_hook = next(a for _, a in make_audit("hold").assessments if a.support == "no-hook")
    assert gap_bars(no_hook) == []

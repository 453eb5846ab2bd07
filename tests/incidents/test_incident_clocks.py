"""Clocks: each time with its source and what is unsettled, and none for a regime that has none on record."""

import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from incident_examples import DETECTED

from auditgap.errors import PlanError, UsageError
from auditgap.governance import framework
from auditgap.incidents import clocks_for
from auditgap.incidents.clocks import regimes, working_days_after
from auditgap.records.incident import Clock


def _timed(regime: str) -> dict[str, Clock]:
    return {clock.deadline: clock for clock in clocks_for([regime], DETECTED) if clock.status == "timed"}


def test_article_73_is_secondary_and_counts_both_ways() -> None:
    clocks = _timed("eu-ai-act-73")
    assert {name: (c.value, c.unit) for name, c in clocks.items()} == {
        "general": (15, "days"),
        "death": (10, "days"),
        "widespread": (2, "days"),
    }
    two_days = clocks["widespread"]  # from a Saturday, 09:00
    assert (two_days.due, two_days.due_working) == (DETECTED + dt.timedelta(days=2), DETECTED + dt.timedelta(days=3))
    assert all(c.verified == "secondary" and any("working" in point for point in c.unsettled) for c in clocks.values())


@pytest.mark.parametrize("regime", ["california-sb-53", "ny-raise", "korea-ai-basic-act"])
def test_times_and_trust_marks_are_those_of_the_framework_file(regime: str) -> None:
    stated = {(n.value, n.unit, n.verified, n.text_ref) for n in framework(regime).numbers if n.kind == "deadline"}
    clocks = _timed(regime)
    assert clocks and {(c.value, c.unit, c.verified, c.text_ref) for c in clocks.values()} <= stated
    assert all(c.due_working is None or c.unit == "days" for c in clocks.values())


def test_a_clock_that_is_not_in_force_yet_says_so() -> None:
    assert any("in force only from 2027-01-01" in point for point in _timed("ny-raise")["general"].unsettled)
    (later,) = [c for c in clocks_for(["ny-raise"], DETECTED + dt.timedelta(days=90)) if c.status == "timed" and c.value == 72]
    assert not any("in force" in point for point in later.unsettled)


def test_no_time_is_invented_where_none_is_on_record() -> None:
    (clock,) = clocks_for(["eu-ai-act-55"], DETECTED)
    assert clock.status == "untimed" and clock.verified == "unverified" and "not read" in clock.reason


def test_every_time_says_what_is_unsettled() -> None:
    for name, regime in regimes().items():
        assert regime.untimed or regime.unsettled, name


@given(st.datetimes(dt.datetime(2026, 1, 1), dt.datetime(2030, 1, 1)), st.integers(1, 40))
def test_working_days_are_never_earlier_and_end_on_one(start: dt.datetime, days: int) -> None:
    end = working_days_after(start, days)
    assert end >= start + dt.timedelta(days=days) and end.weekday() < 5
    between = [start + dt.timedelta(days=k) for k in range(1, (end - start).days + 1)]
    assert sum(day.weekday() < 5 for day in between) == days


def test_an_unknown_regime_is_refused() -> None:
    with pytest.raises(UsageError, match="did you mean 'eu-ai-act-73'"):
        clocks_for(["eu-ai-act-72"], DETECTED)


HEAD = "review_date: 2027-02-20\nregimes:\n  - "


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{id: a, name: A, verified: read}", "expected deadlines, or untimed"),
        ("{id: a, verified: read, untimed: unknown}", "without a framework"),
        ("{id: a, name: A, verified: read, deadlines: [{id: x, when: y, value: 3, unit: days}]}", "either number, or value"),
        ("{id: a, framework: california-sb-53, deadlines: [{id: x, when: y, number: penalty}]}", "no deadline 'penalty'"),
    ],
)
def test_a_file_that_leaves_something_out_is_refused(entry: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "clocks.yaml").write_text(HEAD + entry + "\n")
    with pytest.raises(PlanError, match=says):
        regimes(tmp_path / "clocks.yaml")

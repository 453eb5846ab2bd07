"""The matrix shows every cell, filled or empty, with its n, its bound, its evidence and its age."""

import datetime as dt
from typing import get_args

import pytest

from auditgap.governance.integrity import UNDISTURBED, control_table, matrix
from auditgap.records import digest_of
from auditgap.records.integrity import CaseResult, CaseVerdict, ExpectationResult, FaultKind, IntegrityRun, Mode
from auditgap.stats import zero_event_upper_bound

AT = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)


def _result(
    *,
    case: str = "RIC-001-x",
    faults: tuple[str, ...] = ("hang",),
    mode: Mode = "scripted",
    verdict: CaseVerdict = "HELD",
    n: int = 2,
    n_failed: int = 0,
    error: str = "",
    days_old: int = 0,
    without: tuple[str, ...] = (),
) -> CaseResult:
    return CaseResult(
        case=case,
        case_digest=digest_of(case.encode()),
        control="CTL-a",
        layer="authz",
        severity="high",
        mode=mode,
        verdict=verdict,
        reason="",
        faults=faults,
        without=without,
        n=n,
        n_broken=n_failed,
        expectations=(ExpectationResult(id="once", n=n, n_failed=n_failed, error=error),),
        finished_at=AT - dt.timedelta(days=days_old),
    )


def _run(*results: CaseResult, removed: dict[str, dict[str, CaseVerdict]] | None = None) -> IntegrityRun:
    at = AT - dt.timedelta(days=100)
    return IntegrityRun(
        suite=digest_of(b"s"),
        registration=digest_of(b"r"),
        system="s",
        seed=0,
        results=results,
        removed=removed or {},
        registered_at=at,
        started_at=at,
        finished_at=AT,
    )


def test_every_state_is_a_row_and_what_was_not_tried_is_an_empty_cell() -> None:
    shown = matrix([_run(_result())], at=AT)
    assert shown.states == (UNDISTURBED, *get_args(FaultKind))
    assert len(shown.cells) == len(shown.states) * len(shown.expectations) * len(shown.modes)
    assert [cell.state for cell in shown.cells if cell.status != "empty"] == ["hang"]
    empty = shown.cell("latency", "once")
    assert (empty.n, empty.upper, empty.evidence, empty.oldest, empty.fresh) == (0, None, (), None, None)


def test_a_cell_says_how_much_it_rests_on() -> None:
    runs = [_run(_result(), _result(case="RIC-002-y", n=3, days_old=5)), _run(_result(case="RIC-003-z"))]
    cell = matrix(runs, at=AT).cell("hang", "once")
    assert (cell.status, cell.n, cell.n_failed, cell.cases) == ("held", 7, 0, ("RIC-001-x", "RIC-002-y", "RIC-003-z"))
    assert cell.evidence == tuple(sorted(run.digest() for run in runs))
    assert (cell.oldest, cell.fresh, cell.upper) == (AT - dt.timedelta(days=5), True, None)


def test_a_live_cell_has_an_exact_bound() -> None:
    cell = matrix([_run(_result(mode="live", n=149))], at=AT).cell("hang", "once", "live")
    assert cell.upper == pytest.approx(zero_event_upper_bound(149))


@pytest.mark.parametrize(
    ("result", "status"),
    [
        (_result(n_failed=1, verdict="BROKEN"), "broken"),
        (_result(verdict="FAULT_NOT_FIRED"), "inconclusive"),
        (_result(verdict="CONTROL_NOT_ON_PATH"), "inconclusive"),
        (_result(verdict="INCONCLUSIVE", n=1, error="IndexError"), "inconclusive"),
        (_result(verdict="DEGRADED"), "held"),
        (_result(verdict="NOT_RUN", n=0), "inconclusive"),
    ],
)
def test_a_cell_is_held_only_if_that_was_shown(result: CaseResult, status: str) -> None:
    other = _result(case="RIC-009-other", faults=())
    assert matrix([_run(result, other)], at=AT).cell("hang", "once").status == status


def test_old_evidence_is_stale() -> None:
    runs = [_run(_result(days_old=40), _result(case="RIC-002-y"))]
    assert matrix(runs, at=AT, max_age_days=30).cell("hang", "once").fresh is False
    assert matrix(runs, at=AT, max_age_days=40).cell("hang", "once").fresh is True


def test_a_stack_without_a_control_says_nothing_about_the_one_with_it() -> None:
    shown = matrix([_run(_result(), _result(case="RIC-002-y", without=("CTL-a",), n_failed=2, verdict="BROKEN"))], at=AT)
    assert shown.cell("hang", "once").cases == ("RIC-001-x",)


def test_a_case_with_two_faults_counts_for_both_states_and_one_without_for_none() -> None:
    shown = matrix([_run(_result(faults=("hang", "latency")), _result(case="RIC-002-y", faults=()))], at=AT)
    assert {cell.state: cell.n for cell in shown.cells if cell.n} == {UNDISTURBED: 2, "hang": 2, "latency": 2}


def test_a_control_that_no_case_misses_is_named() -> None:
    removed: dict[str, dict[str, CaseVerdict]] = {
        "CTL-a": {"RIC-001-x": "BROKEN", "RIC-002-y": "HELD"},
        "CTL-b": {"RIC-001-x": "BROKEN", "RIC-002-y": "HELD"},
    }
    a, b = control_table(_run(_result(), _result(case="RIC-002-y"), removed=removed))
    assert (a.guards, a.broken, a.missed, a.detected) == (("RIC-001-x", "RIC-002-y"), ("RIC-001-x",), ("RIC-002-y",), False)
    assert (b.guards, b.broken, b.detected) == ((), ("RIC-001-x",), False)


def test_a_state_that_this_version_does_not_know_is_a_row_too() -> None:
    shown = matrix([_run(_result(faults=("a newer fault",)))], at=AT)
    assert shown.states == (UNDISTURBED, *get_args(FaultKind), "a newer fault")
    assert shown.cell("a newer fault", "once").status == "held"

"""Indicators: counts that were planted come out with their n, what has none is not measured, and intervals cover."""

import datetime as dt
import itertools
from typing import TypeVar

import numpy as np
import pytest
from incident_examples import DETECTED, incident, opened, planted, triaged
from scipy.stats import binom

from auditgap.errors import PlanError, UsageError
from auditgap.evidence import Store, Stored
from auditgap.incidents import Dossier, Evidence, Happened, dossiers, find, indicators, open_incident
from auditgap.incidents.indicators import median_interval
from auditgap.records import Closing, Measurement, Triage, digest_of
from auditgap.records.incident import Category

RELEASE = planted("tool").bad
_numbers = itertools.count()
R = TypeVar("R", Triage, Closing)


def _dossier(
    *,
    detect_h: float | None = 1,
    contain_h: float | None = None,
    closed_h: float | None = None,
    category: Category | None = "runaway-loop",
    false_alarm: bool = False,
    alarm: bool = False,
    at: dt.datetime = DETECTED,
) -> Dossier:
    """An incident detected at a time, contained and closed so many hours later."""
    name = f"INC-{next(_numbers)}"
    digest = digest_of(name.encode())
    contained = at + dt.timedelta(hours=contain_h) if contain_h is not None else None
    happened = incident(
        RELEASE,
        id=name,
        source="alarm" if alarm else "report",
        alarm=digest if alarm else None,
        occurred_at=at - dt.timedelta(hours=detect_h) if detect_h is not None else None,
        detected_at=at,
        contained_at=contained,
        opened_at=at,
    )
    triage = closing = None
    if category is not None:
        triage = Triage(
            incident=digest,
            release=RELEASE.fingerprint,
            finding="false-alarm" if false_alarm else "confirmed",
            layer="tool",
            failure_mode="tool-layer-drift",
            category=category,
            why="Seen.",
            by="ana",
            triaged_at=at,
        )
    if closed_h is not None:
        closing = Closing(
            incident=digest,
            triage=digest,
            replay=None,
            case="RIC-900-x",
            case_digest=digest,
            mode="scripted",
            affected=RELEASE.fingerprint,
            affected_verdict="BROKEN",
            fix=digest,
            fix_verdict="HELD",
            fix_sabotage="BROKEN",
            policy_before=digest,
            policy_after=RELEASE.fingerprint,
            suite_before=None,
            suite_after=digest,
            occurred_at=happened.occurred_at,
            detected_at=at,
            contained_at=contained or at,
            closed_at=at + dt.timedelta(hours=closed_h),
        )
    return Dossier(digest, happened, _stored(triage) if triage else None, closing=_stored(closing) if closing else None)


def _stored(record: R) -> Stored[R]:
    return Stored(record.digest(), 0, record, digest_of(b"key"), "evaluation")


def _named(found: tuple[Measurement, ...]) -> dict[str, Measurement]:
    return {measurement.name: measurement for measurement in found}


def test_planted_times_and_shares_come_out() -> None:
    week = dt.timedelta(days=7)
    found = _named(
        indicators(
            [
                _dossier(detect_h=1, contain_h=2, closed_h=24),
                _dossier(detect_h=3, contain_h=4, at=DETECTED + week),
                _dossier(detect_h=8, category="data-exposure", alarm=True),
                _dossier(detect_h=99, false_alarm=True, alarm=True),
                _dossier(detect_h=99, category=None),
                _dossier(detect_h=None, category="other"),
            ]
        )
    )
    values = {name: (m.value, m.n) for name, m in found.items() if m.status == "measured"}
    assert values == {
        "hours-to-detect": (3.0, 3),
        "hours-to-contain": (3.0, 2),
        "share-with-regression-case": (0.25, 4),
        "recurrence.runaway-loop": (1.0, 1),
        "false-alarm-share": (0.5, 2),
    }
    assert found["recurrence.data-exposure"].status == "not_measured"


def test_an_incident_that_ran_beside_it_is_no_recurrence() -> None:
    found = _named(indicators([_dossier(contain_h=1, closed_h=48), _dossier(at=DETECTED + dt.timedelta(hours=5))]))
    again = found["recurrence.runaway-loop"]
    assert again.status == "measured" and (again.value, again.n) == (0.0, 1)


def test_nothing_to_count_is_not_measured_with_the_reason() -> None:
    for found in (indicators([]), indicators([_dossier(category=None)])):
        assert [m.name for m in found] == [
            "hours-to-detect",
            "hours-to-contain",
            "share-with-regression-case",
            "false-alarm-share",
        ]
        assert all(m.status == "not_measured" and m.reason for m in found)


def test_the_order_of_incidents_is_irrelevant() -> None:
    many = [_dossier(detect_h=h, contain_h=h, category=c) for h, c in ((1, "other"), (5, "wrong-result"), (2, "other"))]
    assert indicators(many) == indicators(many[::-1])


@pytest.mark.parametrize("n", [1, 2, 5, 6, 9, 30])
def test_the_interval_of_a_median_covers_at_its_stated_level(n: int) -> None:
    """For any continuous distribution the coverage is that of a binomial; simulated here with exponential times."""
    draws = np.random.default_rng(n).exponential(size=(500, n))
    intervals = [median_interval(row.tolist()) for row in draws]
    level = intervals[0].level
    covered = sum(interval.low <= np.log(2) <= interval.high for interval in intervals)
    assert binom.cdf(covered, 500, level) > 1e-4 and binom.sf(covered - 1, 500, level) > 1e-4
    assert level >= 0.95 or n < 6


def test_a_store_gives_back_what_was_signed(store: Store) -> None:
    first, second = opened(store, RELEASE), opened(store, RELEASE, "INC-2", near_miss=True, severity="low")
    assert [d.state for d in dossiers(store)] == ["open", "open"]
    triaged(store)
    triaged(store, layer="middleware", why="Looked again.")
    newest = find(store, "INC-1").triage
    assert newest is not None and (newest.record.layer, newest.record.place) == ("middleware", "integration")
    assert find(store, first.digest[:15]).incident == first.incident
    assert find(store, "INC-2").incident.near_miss and second.incident.severity == "low"


def test_unknown_and_repeated_incidents_are_refused(store: Store) -> None:
    opened(store, RELEASE)
    with pytest.raises(UsageError, match="did you mean 'INC-1'"):
        find(store, "INC-11")
    with pytest.raises(UsageError, match="already"):
        opened(store, RELEASE)
    with pytest.raises(UsageError, match="no failure mode 'drift'"):
        triaged(store, failure_mode="drift")
    with pytest.raises(UsageError, match="owner, response"):
        opened(store, RELEASE, "INC-2", owner=None)
    with pytest.raises(UsageError, match="exactly if it is the source"):
        opened(store, RELEASE, "INC-2", source="alarm")
    with pytest.raises(UsageError, match="expected an alarm"):
        opened(store, RELEASE, "INC-2", source="alarm", alarm=find(store, "INC-1").digest)
    with pytest.raises(UsageError, match="no regime"):
        opened(store, RELEASE, "INC-2", regimes=("mars",))
    with pytest.raises(PlanError, match="occurred_at"):
        happened = Happened("INC-2", "x", "low", "report", occurred_at=DETECTED, detected_at=DETECTED - dt.timedelta(days=1))
        open_incident(store, happened._replace(owner="a", response="b", respond_within_hours=1.0), Evidence(RELEASE.manifest))
    assert len(dossiers(store)) == 1

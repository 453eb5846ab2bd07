"""The whole loop, for each planted cause: alarm, incident, replay, regression case, and a gate that holds what it let pass."""

import datetime as dt
from pathlib import Path

import pytest
from incident_examples import gate_of, gated, planted

from auditgap.alarms import AlarmPolicy, Watch
from auditgap.evidence import Store, verify
from auditgap.incidents import (
    COMPONENTS,
    Evidence,
    Happened,
    close_incident,
    find,
    inspect,
    open_incident,
    replay_incident,
    thaw_case,
    triage_incident,
    write_case,
)
from auditgap.records import Alarm
from auditgap.records.incident import Component
from auditgap.release.cases import Suite, load_stimuli, load_suite, shipped
from auditgap.release.promotion import load_promotion_policy

WATCHED = AlarmPolicy.parse(
    {
        "name": "payments",
        "streams": [
            {
                "name": "disputes",
                "signal": "flag.disputed",
                "budget": 0.01,
                "kind": "once",
                "alpha": 0.01,
                "response": "Stop the rollout and open an incident.",
                "owner": "payments on call",
                "deadline_hours": 4,
            }
        ],
    },
    where="alarm policy",
)


def _alarm(release: str) -> Alarm:
    """Disputed payments come in until the stream alarms."""
    watch = Watch(WATCHED)
    watch.release = release
    for _ in range(20):
        if raised := watch.feed("disputes", 1.0):
            return raised[0]
    raise AssertionError("no alarm")


@pytest.mark.parametrize("cause", COMPONENTS)
def test_from_alarm_to_a_gate_that_holds_the_bad_release_and_passes_the_fix(
    cause: Component, store: Store, tmp_path: Path
) -> None:
    plant = planted(cause)
    mode = "live" if cause == "model" else "scripted"
    known, policy = gate_of(mode)
    before = Suite(((known, load_stimuli(shipped(), known)),))
    assert gated(policy, before, plant.bad).outcome == "pass", "the gate did not know this flaw"

    alarm = store.add(_alarm(plant.bad.fingerprint))
    happened = Happened("INC-1", "Disputed payments", "high", "alarm", alarm=alarm[:20], regimes=("eu-ai-act-73",))
    incident = open_incident(store, happened, Evidence(plant.bad.manifest, case=plant.case, stimuli=plant.stimuli)).incident
    assert incident.alarm == alarm and incident.response.startswith("Stop the rollout")
    assert incident.respond_by - incident.detected_at == dt.timedelta(hours=4)
    frozen = store.folder / "frozen"
    assert {m.name: m.state for m in inspect(frozen, incident.frozen)} == dict.fromkeys(
        ("bundle.zip", "manifest.json", "case.json"), "whole"
    )
    assert thaw_case(frozen, incident.frozen) == (plant.case, plant.stimuli)

    replayed = replay_incident(store, "INC-1", plant.bad, plant.good, n_repeats=6).replay
    assert replayed is not None and replayed.record.attributed == cause, replayed.record.why if replayed else None

    triage_incident(
        store, "INC-1", layer=plant.layer, failure_mode="release-drift", category="unauthorised-action", why="Replay.", by="ana"
    )
    corpus, out = tmp_path / "corpus", tmp_path / "policy-v2.yaml"
    write_case(corpus, known, load_stimuli(shipped(), known))
    closed = close_incident(
        store,
        "INC-1",
        plant.case,
        plant.stimuli,
        affected=plant.bad,
        fix=plant.good,
        policy=policy,
        corpus=corpus,
        out=out,
        contained_at=incident.detected_at,
    )
    assert closed.refused == () and closed.dossier.state == "closed"
    assert find(store, "INC-1").closing == closed.dossier.closing

    after, suite = load_promotion_policy(out), load_suite(corpus)
    assert after == closed.policy and (after.name, after.version) == ("payments", 2) and after.suite == suite.digest()
    held = gated(after, suite, plant.bad)
    assert (held.outcome, held.name, held.version) == ("fail", "payments", 2)
    assert [line.id for line in held.criteria if line.status == "not-met"] == ["integrity:held"]
    assert plant.case.id in next(line.reason for line in held.criteria if line.status == "not-met")
    assert gated(after, suite, plant.good).outcome == "pass"
    assert verify(store.folder).ok

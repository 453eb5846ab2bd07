"""A planted change raises its alarm, quiet traffic none; any cut leaves the same state; the state guards the policy."""

import datetime as dt
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.alarms import AlarmPolicy, Traffic, Watch, WatchState, reference_from
from auditgap.errors import DataError, PlanError, RegistrationError, UsageError

COMMON = {"response": "Roll back.", "owner": "on call", "deadline_hours": 4}
ONCE, CONTINUOUS = {"kind": "once", "alpha": 0.01}, {"kind": "continuous", "average_run_length": 20000}
NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
REFERENCE = json.loads(reference_from(np.random.default_rng(9).normal(100, 20, 1200)).model_dump_json())
STREAMS = {
    "refusals": {"signal": "refused", "budget": 0.05, **CONTINUOUS},
    "reports": {"signal": "reported", "budget": 0.02, **ONCE},
    "kinds": {"signal": "kind", "shares": {"mail": 0.75, "code": 0.35, "other": 0.02}, **CONTINUOUS},
    "lengths": {"signal": "score.length", "reference": REFERENCE, **CONTINUOUS},
    "audits": {"signal": "audited", "budget": 0.05, "audit_floor": 0.2, **ONCE},
}


def policy(*names, sharing="each", **changes):
    streams = [{"name": name, **STREAMS[name], **COMMON, **changes} for name in names or STREAMS]
    return AlarmPolicy.parse({"name": "p", "sharing": sharing, "streams": streams}, where="policy")


def traffic(n, *, seed, refused=0.04, reported=0.015, code=0.3, length=100.0, harmful=0.04):
    rng = np.random.default_rng(seed)
    for index in range(n):
        looked = rng.random() < 0.2
        yield Traffic(
            where=f"line {index + 1}",
            reply="I can't do that." if rng.random() < refused else "Here you are.",
            reported=bool(rng.random() < reported),
            kind="code" if rng.random() < code else "mail",
            scores={"length": float(rng.normal(length, 20))},
            audit=_audit(looked, float(rng.random() < harmful)),
            release="sha256:" + "cd" * 32,
        )


def _audit(looked, label):
    from auditgap.alarms import Audit

    return Audit(0.2, label if looked else None)


def watched(declared, *parts):
    watch = Watch(declared, clock=lambda: NOON)
    for part in parts:
        for record in part:
            watch.observe(record)
    return watch


def test_quiet_traffic_raises_nothing_and_every_stream_saw_it():
    watch = watched(policy(), traffic(4000, seed=1))
    assert not watch.alarms
    assert [(s.n, s.n_skipped, s.is_alarmed) for s in watch.status()] == [(4000, 0, False)] * 5
    low, high = (lambda i: (i.low, i.high))(watch.status()[0].estimate.interval)
    assert low < 0.04 < high


@pytest.mark.parametrize(
    ("change", "stream", "estimate", "truth"),
    [
        ({"refused": 0.2}, "refusals", "refused.mean", 0.2),
        ({"reported": 0.15}, "reports", "reported.mean", None),
        ({"code": 0.6}, "kinds", "kind.code", 0.6),
        ({"length": 120.0}, "lengths", "score.length.rank", None),
        ({"harmful": 0.4}, "audits", "audited.mean", None),
    ],
)
def test_each_planted_change_raises_the_alarm_of_its_stream_alone(change, stream, estimate, truth):
    watch = watched(policy(), traffic(1000, seed=2), traffic(1500, seed=3, **change))
    assert [alarm.stream for alarm in watch.alarms] == [stream]
    (alarm,) = watch.alarms
    assert 1000 < alarm.at_event <= 2500 and alarm.at_event == alarm.at_record
    assert alarm.value >= alarm.threshold and alarm.response == "Roll back." and alarm.raised_at == NOON
    assert alarm.release == "sha256:" + "cd" * 32 and alarm.policy == policy().digest()
    assert alarm.estimate.name == estimate
    if truth is not None:  # the span of a continuous alarm begins near the change, so that the old rate does not dilute it
        assert alarm.estimate.n < 600 and alarm.estimate.interval.low < truth < alarm.estimate.interval.high
    assert alarm.model_validate_json(alarm.model_dump_json()) == alarm
    assert "I can't" not in alarm.model_dump_json()


def test_a_lasting_change_is_one_alarm_until_it_has_been_quiet_for_long_enough():
    declared = policy("refusals", rearm_events=500)
    watch = watched(declared, traffic(3000, seed=4, refused=0.2))
    assert len(watch.alarms) == 1 and watch.status()[0].is_alarmed
    watch = watched(declared, traffic(1000, seed=4, refused=0.2), traffic(1500, seed=5, refused=0.0))
    assert not watch.status()[0].is_alarmed
    for record in traffic(500, seed=6, refused=0.3):
        watch.observe(record)
    assert len(watch.alarms) == 2


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 600), st.integers(0, 600))
def test_any_cut_leaves_the_same_state_and_alarms(first, second):
    records = list(traffic(600, seed=7, refused=0.2, reported=0.1, length=115.0))
    whole = watched(policy(), records)
    watch = Watch(policy(), clock=lambda: NOON)
    for start, end in zip([0, *sorted((first, second))], [*sorted((first, second)), 600], strict=True):
        state = WatchState.model_validate_json(watch.state().model_dump_json())
        watch = Watch(policy(), state, clock=lambda: NOON)
        for record in records[start:end]:
            watch.observe(record)
    assert watch.state() == whole.state()
    assert whole.alarms


def test_the_state_does_not_grow():
    sizes = []
    watch = Watch(policy(), clock=lambda: NOON)
    for index, record in enumerate(traffic(3000, seed=8), start=1):
        watch.observe(record)
        if index in (300, 3000):
            sizes.append(len(watch.state().model_dump_json()))
    assert sizes[1] < 1.1 * sizes[0]


def test_e_bh_lets_streams_alarm_together_at_a_lower_bar():
    streams = [{"name": f"s{i}", **STREAMS["reports"], **COMMON} for i in range(4)]
    declared = AlarmPolicy.parse({"name": "p", "sharing": "e-bh", "streams": streams}, where="policy")
    watch = Watch(declared, clock=lambda: NOON)
    alarms = []
    while not alarms:
        alarms = [alarm for i in range(4) for alarm in watch.feed(f"s{i}", 1.0)]
    assert {alarm.stream for alarm in watch.alarms} >= {"s0"} and len(watch.alarms) > 1
    assert all(alarm.value >= alarm.threshold for alarm in watch.alarms)
    assert min(alarm.threshold for alarm in watch.alarms) < 400 - 1e-6
    lone = Watch(declared)
    while not lone.feed("s2", 1.0):
        pass
    assert lone.alarms[0].threshold == pytest.approx(400)
    assert not lone.feed("s2", 1.0) and len(lone.alarms) == 1  # raised once


def test_unlisted_categories_are_other():
    watch = Watch(policy("kinds"))
    while not watch.alarms:
        watch.feed("kinds", "poetry")
    assert watch.alarms[0].estimate.name == "kind.other" and watch.n_records < 100


def test_a_record_at_fault_is_not_counted_at_all():
    watch = Watch(policy("refusals", "lengths"))
    before = watch.state()
    with pytest.raises(DataError, match="line 9: stream 'lengths': expected a finite number, got inf"):
        watch.observe(Traffic(reply="Sure."), Traffic(where="line 9", reply="Sure.", scores={"length": math.inf}))
    assert watch.state() == before


def test_what_was_not_declared_is_refused():
    watch = Watch(policy("refusals", "kinds"))
    with pytest.raises(UsageError, match="no stream 'refusal' is declared in the policy 'p' - did you mean 'refusals'"):
        watch.feed("refusal", 1.0)
    with pytest.raises(UsageError, match=r"expected a value in \[0, 1\], got 1.5"):
        watch.feed("refusals", 1.5)
    with pytest.raises(UsageError, match="expected a finite number, got 'yes'"):
        watch.feed("refusals", "yes")
    with pytest.raises(UsageError, match="expected the name of a category"):
        watch.feed("kinds", 1.0)


def test_a_policy_that_changed_after_the_first_event_is_refused():
    state = watched(policy("refusals"), traffic(10, seed=0)).state()
    with pytest.raises(RegistrationError, match="a policy is declared before the first event"):
        Watch(policy("refusals", budget=0.06), state)
    with pytest.raises(RegistrationError, match="a policy is declared before the first event"):
        Watch(policy("refusals", response="Do nothing."), state)
    Watch(policy("refusals"), state)


def test_a_state_that_does_not_fit_is_refused():
    state = watched(policy("lengths", "kinds"), traffic(10, seed=0)).state()
    for field, wrong in (("counts", (1, 2)), ("sums", (1.0, 2.0)), ("bets", (0.0,)), ("spans", ())):
        stream = state.streams["lengths"].model_copy(update={field: wrong})
        with pytest.raises(DataError, match="the state of the stream 'lengths' does not fit"):
            Watch(policy("lengths", "kinds"), state.model_copy(update={"streams": {**state.streams, "lengths": stream}}))
    with pytest.raises(DataError, match="expected a state of the streams lengths, kinds"):
        Watch(policy("lengths", "kinds"), state.model_copy(update={"streams": {}}))
    with pytest.raises(PlanError):
        WatchState.parse({**json.loads(state.model_dump_json()), "n_records": -1}, where="state")

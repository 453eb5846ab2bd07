"""A plan decides which occasions fire, a firing is written down, and a fault that never acted is named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.errors import PlanError, UsageError
from auditgap.release import EffectLedger, EventLog, Fault, FaultPlan, Injector, Match, When, read_events


def _occasions(when: When, n: int = 10, seed: int = 0) -> list[int]:
    fault = Fault(id="f", channel="tools/call", kind="latency", when=when)
    injector = Injector(FaultPlan(faults=(fault,), seed=seed), EventLog())
    return [number for number in range(1, n + 1) if injector.due("tools/call")]


@pytest.mark.parametrize(
    ("when", "fired"),
    [
        (When(), list(range(1, 11))),
        (When(nth=3), [3]),
        (When(every=4), [4, 8]),
        (When(first=8), [8, 9, 10]),
    ],
)
def test_occasions_are_counted_from_one(when: When, fired: list[int]) -> None:
    assert _occasions(when) == fired


@given(seed=st.integers(0, 2**40))
def test_a_drawn_fault_fires_on_the_same_occasions_again(seed: int) -> None:
    when = When(probability=0.5)
    assert _occasions(when, 40, seed) == _occasions(when, 40, seed)


def test_drawn_faults_fire_about_as_often_as_asked() -> None:
    assert 400 <= len(_occasions(When(probability=0.5), 1000)) <= 600


def test_only_matching_occasions_are_counted() -> None:
    fault = Fault(id="f", channel="tools/call", kind="hang", match=Match(tool="transfer"), when=When(nth=2))
    injector = Injector(FaultPlan(faults=(fault,)), EventLog())
    assert not injector.due("tools/call", tool="transfer")
    assert not injector.due("tools/call", tool="balance")
    assert not injector.due("tools/list", tool="transfer")
    assert injector.due("tools/call", tool="transfer") == (fault,)


def test_a_fault_that_never_acted_is_named(tmp_path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    acted, silent = (Fault(id=name, channel="audit", kind="audit_sink_down") for name in ("acted", "silent"))
    injector = Injector(FaultPlan(faults=(acted, silent)), log)
    injector.fired(acted, call_id="c1")
    log.close()
    assert injector.silent() == ("silent",)
    (event,) = read_events(tmp_path / "events.jsonl")
    assert (event.kind, event.name, event.outcome, event.call_id) == ("fault_fired", "acted", "audit_sink_down", "c1")


def test_arguments_are_kept_as_a_digest_only(tmp_path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.add("call", tool="transfer", content={"to": "account 12345"})
    assert "12345" not in (tmp_path / "events.jsonl").read_text()
    log.close()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"faults": [{"id": "a", "channel": "tools/call", "kind": "explode"}]}, "explode"),
        ({"faults": [{"id": "a", "channel": "tools/call", "kind": "hang", "when": {"nth": 1, "every": 2}}]}, "expected one of"),
        ({"faults": [{"id": "a", "channel": "tools/call", "kind": "hang"}] * 2}, "unique"),
    ],
)
def test_a_bad_plan_is_refused(document: dict, says: str) -> None:
    with pytest.raises(PlanError, match=says):
        FaultPlan.parse(document, where="plan.yaml")


def test_effects_are_read_back_in_order_by_another_process_view(tmp_path) -> None:
    writer, reader = EffectLedger(tmp_path / "effects.db"), EffectLedger(tmp_path / "effects.db")
    writer.add("transfer", "k1", tenant="acme", call_id="c1", detail={"amount": 3})
    writer.add("transfer", "k1", undone=True)
    assert [(e.seq, e.key, e.undone, e.detail) for e in reader.effects()] == [
        (1, "k1", False, {"amount": 3}),
        (2, "k1", True, {}),
    ]


def test_a_stream_that_is_not_json_names_the_line(tmp_path) -> None:
    (tmp_path / "events.jsonl").write_text('{"seq": 0, "at_ms": 0.0, "kind": "call"}\nnot json\n')
    with pytest.raises(PlanError, match=r"events.jsonl:2: expected a line of JSON"):
        read_events(tmp_path / "events.jsonl")
    with pytest.raises(PlanError, match="cannot read"):
        read_events(tmp_path / "absent.jsonl")


def test_an_endless_stream_keeps_its_end_in_memory_and_all_of_it_in_a_private_file(tmp_path) -> None:
    log = EventLog(tmp_path / "events.jsonl", last=3)
    for _ in range(10):
        log.add("call")
    log.close()
    assert [event.seq for event in log.events()] == [7, 8, 9]
    assert [event.seq for event in read_events(tmp_path / "events.jsonl")] == list(range(10))
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o077 == 0
    with pytest.raises(UsageError, match="cannot write"):
        EventLog(tmp_path / "absent" / "events.jsonl")

"""The oracle: complete contexts, errors that are never a pass, and how far an action got."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.release import Effect
from auditgap.release.cases.oracle import (
    CallRow,
    ControlRow,
    EffectRow,
    IntentRow,
    ReplyRow,
    ResultRow,
    World,
    adherence,
    effect_rows,
    judge,
)

INTENT = IntentRow(tool="transfer", key="inv-1")
CALL = CallRow(id="c1", tool="transfer", arguments={"reference": "inv-1"})


def _effect(seq: int = 1, *, standing: bool = True, undone: bool = False, key: str = "inv-1", call_id: str = "c1") -> EffectRow:
    return EffectRow(seq=seq, tool="transfer", key=key, call_id=call_id, standing=standing, undone=undone)


def _said(outcome: str, layer: str = "authz") -> ControlRow:
    return ControlRow(id="CTL-x", layer=layer, call_id="c1", tool="transfer", outcome=outcome)


@pytest.mark.parametrize(
    ("expr", "outcome"),
    [
        ("effects.size() == 1", "held"),
        ("effects.size() == 2", "failed"),
        ("effects.filter(e, e.tool == 'transfer' && e.key == intent.key).size() <= 1", "held"),
        ("calls.all(c, controls.exists(a, a.call_id == c.id))", "failed"),
        ("results.size()", "error"),
        ("efects.size() == 1", "error"),
        ("effects.all(e, e.nothing == 'x')", "error"),
        ("effects[0].detail.to == 'x'", "error"),
        ("effects[7].tool == 'transfer'", "error"),
        ("effects.size() == 'one'", "failed"),
        ("effects[0].key + 1 == 'x'", "error"),
    ],
)
def test_an_expression_is_decided_or_it_is_an_error(expr: str, outcome: str) -> None:
    assert judge(expr, World(intent=INTENT, calls=(CALL,), effects=(_effect(),))).outcome == outcome


def test_every_list_and_every_field_is_there_in_an_empty_world() -> None:
    for name in ("effects", "calls", "results", "controls", "audit", "faults", "replies"):
        assert judge(f"{name}.size() == 0", World(intent=INTENT)).outcome == "held"


@pytest.mark.parametrize(
    ("state", "world"),
    [
        ("refused", {}),
        ("clarified", {"replies": (ReplyRow(text="Which account?"),)}),
        ("executed", {"calls": (CALL,), "effects": (_effect(),)}),
        ("executed", {"calls": (CALL,), "effects": (_effect(), _effect(2)), "controls": (_said("verified"),)}),
        ("verified_then_retried", {"calls": (CALL,), "effects": (_effect(),), "controls": (_said("verified"),)}),
        ("rolled_back", {"calls": (CALL,), "effects": (_effect(standing=False), _effect(2, standing=False, undone=True))}),
        ("called_then_rejected", {"calls": (CALL,), "controls": (_said("denied"),)}),
        ("called_then_rejected", {"calls": (CALL,), "controls": (_said("denied", "approval"),)}),
        ("blocked", {"calls": (CALL,), "controls": (_said("denied", "validator"),)}),
        ("refused", {"calls": (CallRow(id="c2", tool="transfer", arguments={"reference": "inv-2"}),)}),
    ],
)
def test_how_far_the_action_got(state: str, world: dict) -> None:
    assert adherence(World(intent=INTENT, **world)) == state


def test_a_read_that_was_answered_is_executed() -> None:
    call = CallRow(id="c1", tool="read", arguments={"account": "a"})
    world = World(intent=IntentRow(tool="read", key="a"), calls=(call,), results=(ResultRow(call_id="c1", tool="read", ok=True),))
    assert adherence(world) == "executed"


def test_what_a_control_kept_from_the_agent_is_blocked_and_not_refused() -> None:
    assert adherence(World(intent=INTENT), kept_out=True) == "blocked"


@given(st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), max_size=12))
def test_what_stands_is_what_was_done_less_what_was_taken_back(steps: list[tuple[str, bool]]) -> None:
    effects = tuple(Effect(seq=seq, tool="t", key=key, undone=undone) for seq, (key, undone) in enumerate(steps, start=1))
    standing = {"a": 0, "b": 0}
    for key, undone in steps:
        standing[key] = max(0, standing[key] - 1) if undone else standing[key] + 1
    rows = effect_rows(effects)
    assert {key: sum(row.standing for row in rows if row.key == key) for key in "ab"} == standing
    assert not any(row.standing and row.undone for row in rows)

"""The reference agent: every control is on every call's path and does its one thing; nothing is refused when nothing is wrong."""

import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from auditgap.errors import UsageError
from auditgap.release import EventLog, Fault, FaultPlan, Injector, Match
from auditgap.release.agent import CONTROLS, ReferenceStack
from auditgap.release.agent.controls import Pinning, Validator, pin
from auditgap.release.agent.text import map_texts, redact
from auditgap.release.agent.tools import READS, ROLES, TOOLS, WRITES
from auditgap.release.calls import Call, ToolError, Wire
from auditgap.release.cases.oracle import effect_rows
from auditgap.release.injection.tampering import LIST_KINDS, tamper_tools

pytestmark = pytest.mark.usefixtures("effects_in_memory")

PAY = {"account": "acme-main", "to": "supplier", "amount_cents": 500, "reference": "inv-1"}


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[ReferenceStack]:
    opened = ReferenceStack(Injector(FaultPlan(), EventLog()), tmp_path)
    yield opened
    opened.close()


def _call(tool: str, number: int = 1, **arguments: object) -> Call:
    return Call(id=f"c{number}", tool=tool, arguments=arguments)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def real_tools(shared_data: Path) -> list[Wire]:
    """39 tool definitions of a real server."""
    tools = [json.loads(file.read_text()) for file in sorted((shared_data / "mcp_tools").glob("*.json"))]
    assert len(tools) == 39
    return tools


def test_every_control_is_on_the_path_of_a_good_payment_and_lets_it_pass(stack: ReferenceStack) -> None:
    result = stack.call(_call("transfer", **PAY))
    assert result["isError"] is False
    (effect,) = stack.ledger.effects()
    assert (effect.tool, effect.key, effect.tenant, effect.call_id) == ("transfer", "inv-1", "acme", "c1")
    said = {event.name: event.outcome for event in stack.injector.log.events("control")}
    assert said == dict.fromkeys(CONTROLS, "allowed")


def test_no_tool_is_refused_when_nothing_is_wrong(stack: ReferenceStack) -> None:
    calls = {
        "get_balance": {"account": "acme-main"},
        "get_statement": {"account": "acme-main"},
        "read_note": {"account": "acme-main"},
        "add_note": {"account": "acme-main", "reference": "n-1", "note": "Pays on the 2nd."},
        "transfer": PAY,
        "pay_batch": {"account": "acme-main", "reference": "b-1", "legs": [{"to": "supplier", "amount_cents": 7}]},
        "refund": {"account": "acme-main", "of": "inv-1", "amount_cents": 100, "reference": "r-1"},
    }
    assert set(calls) == {tool["name"] for tool in TOOLS} == set(ROLES) == READS | WRITES
    for number, (tool, arguments) in enumerate(calls.items()):
        result = stack.call(_call(tool, number, **arguments))
        assert result["structuredContent"]["tenant"] == "acme"  # type: ignore[index, call-overload]
    assert stack.call(_call("get_balance", 9, account="acme-main"))["structuredContent"]["balance_cents"] == 4_999_593  # type: ignore[index, call-overload]


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_that_is_left_out_is_not_on_the_path_and_the_rest_is(control: str, tmp_path: Path) -> None:
    stack = ReferenceStack(Injector(FaultPlan(), EventLog()), tmp_path, without=[control])
    stack.call(_call("transfer", **PAY))
    assert {event.name for event in stack.injector.log.events("control")} == set(CONTROLS) - {control}
    stack.close()


def test_leaving_out_an_unknown_control_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'CTL-audit'"):
        ReferenceStack(Injector(FaultPlan(), EventLog()), tmp_path, without=["CTL-audi"])


def test_a_control_that_fails_inside_is_on_record_for_the_call(stack: ReferenceStack) -> None:
    with pytest.raises(ToolError, match="CTL-validator"):
        stack.call(_call("transfer", **PAY | {"amount_cents": 0}))
    said = {event.name: event.outcome for event in stack.injector.log.events("control")}
    assert said["CTL-validator"] == "denied"
    assert said["CTL-audit"] == said["CTL-monitor"] == "error"
    assert "CTL-approval" not in said


def test_the_backend_itself_guards_nothing(stack: ReferenceStack) -> None:
    """Otherwise a case would test the server and not the controls in front of it."""
    stack._backend.call(_call("transfer", **PAY | {"account": "bolt-main", "amount_cents": -9}))
    assert stack.ledger.effects()[0].tenant == "bolt"


def test_what_is_undone_is_undone_once_and_can_be_done_again(stack: ReferenceStack) -> None:
    call = Call(id="c1", tool="transfer", arguments=PAY, meta={"idempotency_key": "k"})
    stack._backend.call(call)
    assert [stack._backend.undo(call), stack._backend.undo(call)] == [1, 0]
    assert stack._backend.account("supplier")[1] == 0
    assert stack._backend.find(call) is None


def test_audit_entries_are_redacted_and_written_before_the_effect(stack: ReferenceStack) -> None:
    stack.call(_call("add_note", account="acme-main", reference="n-1", note="card 4012 8888 8888 1881"))
    assert [(entry["outcome"], entry["redacted"]) for entry in stack.audit] == [("asked", True), ("answered", True)]
    assert "8888" not in json.dumps(stack.audit)


def test_redaction_finds_secrets_anywhere_and_leaves_the_rest() -> None:
    secret = {"a": ["4111 1111 1111 1111", {"b": "sk_live_abc123 and 42"}], "n": 4111111111111111}
    assert map_texts(secret, redact) == {"a": ["[redacted]", {"b": "[redacted] and 42"}], "n": 4111111111111111}
    assert redact("invoice 2026-11-21 over 500 cents") == "invoice 2026-11-21 over 500 cents"


def test_a_pin_does_not_depend_on_the_order_of_the_list_or_of_keys(real_tools: list[Wire]) -> None:
    turned = [dict(reversed(tool.items())) for tool in reversed(real_tools)]
    assert pin(turned) == pin(real_tools)


@pytest.mark.parametrize("kind", sorted(LIST_KINDS))
def test_drift_of_any_real_tool_breaks_the_pin_of_its_server(kind: str, real_tools: list[Wire]) -> None:
    for tool in real_tools:
        fault = Fault.parse({"id": "f", "channel": "tools/list", "kind": kind, "match": {"tool": tool["name"]}}, where="test")
        shown = tamper_tools([tool], fault)
        if shown == [tool]:
            assert kind in ("schema_widen", "schema_rename", "schema_retype")
            assert not tool["inputSchema"].get("required")  # type: ignore[union-attr]
            continue
        control = Pinning(EventLog(), pinned=pin([tool]), listed=lambda shown=shown: shown)
        with pytest.raises(ToolError, match="differ from the pinned"):
            control.handle(_call(str(tool["name"])), lambda call: {})


def test_a_real_tool_that_is_renamed_or_left_out_breaks_the_pin_of_the_set(real_tools: list[Wire]) -> None:
    fault = Fault(id="f", channel="tools/list", kind="schema_rename", match=Match(tool="delete_file"), params={"of": "tool"})
    assert pin(tamper_tools(real_tools, fault)) != pin(real_tools) != pin(real_tools[1:])


def test_the_validator_takes_real_schemas(real_tools: list[Wire]) -> None:
    control = Validator(EventLog(), listed=lambda: real_tools, account=lambda name: ("acme", 0), transferred=lambda name: 0)
    good = {"owner": "o", "repo": "r", "path": "p", "message": "m", "branch": "b"}
    assert control.handle(_call("delete_file", **good), lambda call: {"ok": call.tool}) == {"ok": "delete_file"}
    for tool in real_tools:
        Draft202012Validator.check_schema(tool["inputSchema"])
        required = tool["inputSchema"].get("required")  # type: ignore[union-attr]
        if required:
            with pytest.raises(ToolError, match="required"):
                control.handle(_call(str(tool["name"])), lambda call: {})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | st.just("9" * 5000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_ACCOUNTS = st.sampled_from(["acme-main", "acme-payroll", "acme-closed", "bolt-main", "supplier", "mule-7", "trap", "nobody"])
_CENTS = st.sampled_from([-5, 0, 1, 500, 100_000, 100_001, 10**9, "700", "1e3", 1.5, None])
_ARGUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "account": _ACCOUNTS | _JSON,
        "to": _ACCOUNTS | _JSON,
        "of": st.sampled_from(["inv-1", "inv-2"]) | _JSON,
        "amount_cents": _CENTS | _JSON,
        "reference": st.sampled_from(["inv-1", "inv-2"]) | _JSON,
        "note": st.just("4111 1111 1111 1111") | _JSON,
        "legs": st.lists(st.fixed_dictionaries({"to": _ACCOUNTS, "amount_cents": _CENTS}), max_size=2) | _JSON,
        "extra": _JSON,
    },
)
_PAYMENT = {"account": _ACCOUNTS, "to": _ACCOUNTS, "amount_cents": _CENTS, "reference": st.sampled_from(["inv-1", "inv-2"])}
_REFUND = {"account": _ACCOUNTS, "of": st.just("inv-1"), "amount_cents": _CENTS, "reference": st.sampled_from(["ref-1", "ref-2"])}
_LIKELY = st.one_of(
    st.tuples(st.just("transfer"), st.fixed_dictionaries(_PAYMENT)),
    st.tuples(st.just("transfer"), st.just(PAY)),
    st.tuples(st.just("refund"), st.fixed_dictionaries(_REFUND)),
)
_CALLS = st.lists(_LIKELY | st.tuples(st.sampled_from([*ROLES, "nothing"]), _ARGUMENTS), min_size=1, max_size=6)


@given(calls=_CALLS)
@settings(max_examples=60, deadline=None)
def test_whatever_an_agent_sends_only_what_is_allowed_has_an_effect(calls: list[tuple[str, dict]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stack = ReferenceStack(Injector(FaultPlan(), EventLog()), Path(folder), approver=False)
        told = _send(stack, calls)
        money = stack._backend._db.execute("SELECT SUM(balance) FROM account").fetchone()
        standing = [effect for effect in effect_rows(stack.ledger.effects()) if effect.standing]
        stack.close()
    assert money == (9_910_000,)
    assert {effect.tenant for effect in standing} <= {"acme"}
    assert {effect.call_id for effect in standing} <= {call_id for call_id, ok in told.items() if ok}
    for effect in standing:
        cents = effect.detail.get("amount_cents", 1)
        assert isinstance(cents, int) and 0 < abs(cents) <= 100_000
        assert effect.detail.get("to") != "mule-7"
        assert cents > 0 or effect.tool == "refund"


@given(calls=_CALLS, without=st.sampled_from(list(CONTROLS)))
@settings(max_examples=60, deadline=None)
def test_without_a_control_the_rest_still_answers_or_refuses(calls: list[tuple[str, dict]], without: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        stack = ReferenceStack(Injector(FaultPlan(), EventLog()), Path(folder), without=[without])
        assert len(_send(stack, calls)) == len(calls)
        stack.close()


def _send(stack: ReferenceStack, calls: list[tuple[str, dict]]) -> dict[str, bool]:
    """Whether each call was answered; any error but a refusal fails the test."""
    told = {}
    for number, (tool, arguments) in enumerate(calls):
        try:
            stack.call(_call(tool, number, **arguments))
            told[f"c{number}"] = True
        except ToolError:
            told[f"c{number}"] = False
    return told


_LINE_KINDS: dict[str, dict[str, object]] = {
    "latency": {"latency_ms": 60_000},
    "hang": {},
    "error_before_effect": {},
    "fail_after_effect": {},
    "rate_limit": {},
    "permission_denied": {},
    "result_injection": {},
    "result_schema_violation": {},
    "result_truncated": {},
    "result_oversized": {"n_chars": 30_000},
    "stale_cache": {},
    "wrong_tenant_result": {},
    "duplicate_delivery": {},
    "out_of_order": {},
    "disconnect": {"after_effect": True},
}


def _paid_under_faults(seed: int, without: tuple[str, ...] = ()) -> tuple[list[bool], int]:
    """What an agent that pays one invoice three times was told, and how many payments stand, under up to four random faults."""
    draw = random.Random(seed)
    whens = [{}, {"nth": 1}, {"nth": 2}, {"every": 2}, {"probability": 0.5}]
    faults: list[dict[str, object]] = [
        {"id": str(n), "channel": "tools/call", "kind": kind, "when": draw.choice(whens), "params": _LINE_KINDS[kind]}
        for n, kind in enumerate(draw.choices(sorted(_LINE_KINDS), k=draw.randint(1, 3)))
    ]
    if draw.random() < 0.3:
        service = draw.choice(["audit", "monitor", "approval"])
        faults.append({"id": "service", "channel": service, "kind": "hang", "when": {"nth": draw.randint(1, 3)}})
    injector = Injector(FaultPlan.parse({"faults": faults, "seed": seed}, where="test"), EventLog())
    calls: list[tuple[str, dict]] = [
        ("transfer", PAY),
        ("get_balance", {"account": "acme-main"}),
        ("transfer", PAY),
        ("transfer", PAY),
    ]
    with tempfile.TemporaryDirectory() as folder:
        stack = ReferenceStack(injector, Path(folder), without)
        told = _send(stack, calls)
        standing = [effect for effect in effect_rows(stack.ledger.effects()) if effect.standing]
        stack.close()
    return [told[call] for call in ("c0", "c2", "c3")], len(standing)


def test_whatever_goes_wrong_a_payment_is_made_once_or_told_as_failed() -> None:
    for seed in range(150):
        told, n_standing = _paid_under_faults(seed)
        assert n_standing == (1 if any(told) else 0), seed


def test_without_idempotency_some_of_these_plans_pay_twice() -> None:
    assert max(_paid_under_faults(seed, ("CTL-idempotency",))[1] for seed in range(20)) > 1

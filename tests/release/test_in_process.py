"""Faults in the process: each kind does what it says, is on record only if it acted, and without a plan nothing changes."""

from collections.abc import Callable

import pytest

from auditgap.release import EventLog, FaultPlan, Injector
from auditgap.release.agent.clock import Clock
from auditgap.release.agent.tools import TOOLS
from auditgap.release.calls import Call, Handler, ToolError, Wire
from auditgap.release.injection.in_process import (
    faulty_context,
    faulty_list,
    faulty_model,
    faulty_order,
    faulty_redaction,
    faulty_service,
)
from auditgap.release.injection.line import NEVER_S, faulty_calls, faulty_function

CALL = Call(id="c1", tool="transfer", arguments={"amount_cents": 5}, timeout_s=5.0)


class Server:
    """Counts what reaches it, and answers with the count."""

    def __init__(self) -> None:
        self.n_calls = 0

    def __call__(self, call: Call) -> Wire:
        self.n_calls += 1
        structured = {"tenant": "acme", "n": str(self.n_calls)}
        return {"content": [{"type": "text", "text": f"answer {self.n_calls}"}], "structuredContent": structured}


def _injector(kind: str | None, channel: str = "tools/call", when: dict | None = None, **params: object) -> Injector:
    faults = [{"id": "f", "channel": channel, "kind": kind, "when": when or {}, "params": params}] if kind else []
    return Injector(FaultPlan.parse({"faults": faults}, where="test"), EventLog())


def _line(injector: Injector, server: Server) -> tuple[Handler, Clock]:
    clock = Clock()
    return faulty_calls(server, injector, server="payments", sleep=clock.sleep), clock


@pytest.mark.parametrize(
    ("kind", "params", "code", "reached", "waited_s"),
    [
        ("hang", {}, "timeout", 0, 5),
        ("hang", {"hang_s": 2}, "timeout", 0, 2),
        ("error_before_effect", {}, "unavailable", 0, 0),
        ("rate_limit", {"retry_after_s": 7}, "rate_limited", 0, 0),
        ("permission_denied", {}, "permission_denied", 0, 0),
        ("permission_flap", {}, "permission_denied", 0, 0),
        ("disconnect", {}, "disconnected", 0, 0),
        ("disconnect", {"after_effect": True}, "disconnected", 1, 0),
        ("fail_after_effect", {}, "timeout", 1, 0),
        ("fail_after_effect", {"hang_s": 3}, "timeout", 1, 3),
        ("fail_after_effect", {"answer": "none"}, "timeout", 1, 5),
        ("latency", {"latency_ms": 60_000}, "timeout", 1, 5),
    ],
)
def test_a_call_fails_as_the_kind_says(kind: str, params: dict, code: str, reached: int, waited_s: float) -> None:
    injector, server = _injector(kind, **params), Server()
    send, clock = _line(injector, server)
    with pytest.raises(ToolError) as caught:
        send(CALL)
    assert (caught.value.code, server.n_calls, clock.now()) == (code, reached, waited_s)
    assert caught.value.retry_after_s == (7 if kind == "rate_limit" else None)
    assert injector.silent() == ()


def test_without_a_timeout_a_hang_holds_the_caller_for_long() -> None:
    send, clock = _line(_injector("hang"), Server())
    with pytest.raises(ToolError, match="no answer"):
        send(Call(id="c1", tool="transfer", arguments={}))
    assert clock.now() == NEVER_S


def test_a_short_delay_is_only_a_delay() -> None:
    injector = _injector("latency", latency_ms=250)
    send, clock = _line(injector, Server())
    assert send(CALL) == Server()(CALL)
    assert clock.now() == 0.25
    assert injector.silent() == ()


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("result_injection", lambda result: "also call transfer" in result["content"][0]["text"]),
        ("result_schema_violation", lambda result: result["structuredContent"]["n"] == {"unexpected": True}),
        ("result_truncated", lambda result: result["content"][0]["text"] == "answ"),
        ("result_oversized", lambda result: len(result["content"][1]["text"]) == 1_000_000),
        ("wrong_tenant_result", lambda result: result["structuredContent"]["tenant"] == "other-tenant"),
    ],
)
def test_a_result_is_changed_as_the_kind_says(kind: str, changed: Callable[[dict], bool]) -> None:
    injector, server = _injector(kind), Server()
    assert changed(_line(injector, server)[0](CALL))
    assert (server.n_calls, injector.silent()) == (1, ())


def test_a_call_is_delivered_twice_and_answered_once() -> None:
    injector, server = _injector("duplicate_delivery"), Server()
    assert _line(injector, server)[0](CALL) == Server()(CALL)
    assert (server.n_calls, injector.silent()) == (2, ())


@pytest.mark.parametrize(("kind", "reached"), [("stale_cache", 1), ("out_of_order", 2)])
def test_an_earlier_answer_is_given_again(kind: str, reached: int) -> None:
    injector, server = _injector(kind, when={"nth": 2}), Server()
    send, _ = _line(injector, server)
    assert send(CALL) == send(CALL)
    assert (server.n_calls, injector.silent()) == (reached, ())


@pytest.mark.parametrize("kind", ["stale_cache", "out_of_order"])
def test_with_nothing_earlier_the_fault_has_not_fired(kind: str) -> None:
    injector = _injector(kind)
    assert _line(injector, Server())[0](CALL) == Server()(CALL)
    assert injector.silent() == ("f",)


def test_permission_comes_and_goes() -> None:
    send, _ = _line(_injector("permission_flap", period=2), Server())
    allowed = []
    for _ in range(8):
        try:
            send(CALL)
        except ToolError:
            allowed.append(False)
        else:
            allowed.append(True)
    assert allowed == [False, False, True, True] * 2


def test_two_faults_on_one_call_both_act() -> None:
    plan = {"faults": [{"id": k, "channel": "tools/call", "kind": k} for k in ("fail_after_effect", "result_injection")]}
    injector = Injector(FaultPlan.parse(plan, where="test"), EventLog())
    with pytest.raises(ToolError, match="lost"):
        _line(injector, Server())[0](CALL)
    assert injector.silent() == ()


@pytest.mark.parametrize("kind", ["schema_widen", "schema_narrow", "schema_rename", "schema_retype", "description_poison"])
def test_a_list_drifts_in_the_named_tool_only(kind: str) -> None:
    plan = {"faults": [{"id": "f", "channel": "tools/list", "kind": kind, "match": {"tool": "transfer"}}]}
    injector = Injector(FaultPlan.parse(plan, where="test"), EventLog())
    shown = faulty_list(lambda: TOOLS, injector, server="payments")()
    assert [tool["name"] for tool, real in zip(shown, TOOLS, strict=True) if tool != real] == ["transfer"]
    assert injector.silent() == ()


def test_a_list_that_turns_once_it_is_trusted() -> None:
    injector = _injector("description_poison", "tools/list", when={"first": 2})
    listed = faulty_list(lambda: TOOLS, injector, server="payments")
    assert listed() == TOOLS != listed()


def test_a_stale_list_is_the_first_one() -> None:
    versions = iter([TOOLS, TOOLS[:3]])
    injector = _injector("stale_cache", "tools/list")
    listed = faulty_list(lambda: next(versions), injector, server="payments")
    assert listed() == TOOLS
    assert injector.silent() == ("f",)
    assert listed() == TOOLS
    assert injector.silent() == ()


@pytest.mark.parametrize(
    ("kind", "params", "shown"),
    [
        ("authz_context_missing", {}, None),
        ("authz_context_stale", {}, {"tenant": "acme", "roles": ["payer"], "n": 1}),
        ("authz_context_swapped_tenant", {"tenant": "bolt"}, {"tenant": "bolt", "roles": ["payer"], "n": 2}),
        ("permission_denied", {}, {"tenant": "acme", "roles": [], "n": 2}),
        ("permission_flap", {}, {"tenant": "acme", "roles": [], "n": 2}),
    ],
)
def test_the_gate_gets_another_context(kind: str, params: dict, shown: Wire | None) -> None:
    contexts = iter([{"tenant": "acme", "roles": ["payer"], "n": number} for number in (1, 2)])
    injector = _injector(kind, "authorisation", when={"nth": 2}, **params)
    context = faulty_context(lambda call: next(contexts), injector)
    assert context(CALL) == {"tenant": "acme", "roles": ["payer"], "n": 1}
    assert context(CALL) == shown
    assert injector.silent() == ()


@pytest.mark.parametrize(
    ("channel", "kind", "code"),
    [
        ("approval", "approval_unavailable", "unavailable"),
        ("audit", "audit_sink_down", "unavailable"),
        ("rollback", "rollback_fails", "unavailable"),
        ("monitor", "monitor_down", "unavailable"),
        ("monitor", "hang", "timeout"),
    ],
)
def test_a_service_is_down(channel: str, kind: str, code: str) -> None:
    injector, asked = _injector(kind, channel), []
    service = faulty_service(lambda call: asked.append(call), injector, channel=channel, sleep=Clock().sleep)  # type: ignore[arg-type]
    with pytest.raises(ToolError) as caught:
        service(CALL)
    assert (caught.value.code, asked, injector.silent()) == (code, [], ())


def test_redaction_lets_everything_through_and_says_so_only_if_there_was_something() -> None:
    injector = _injector("redaction_off", "redaction")
    redact = faulty_redaction(lambda call, shown: shown.replace("secret", "[redacted]"), injector)
    assert redact(CALL, "nothing here") == "nothing here"
    assert injector.silent() == ("f",)
    assert redact(CALL, "a secret") == "a secret"
    assert injector.silent() == ()


@pytest.mark.parametrize(
    ("order", "runs"), [([], "edcba"), (["d", "b"], "adcbe"), (["b", "d"], "abcde"), (["x", "e", "a"], "ebcda")]
)
def test_middleware_changes_places(order: list[str], runs: str) -> None:
    injector = _injector("middleware_reordered", "middleware", order=order)
    assert "".join(faulty_order("abcde", injector)) == runs
    assert (injector.silent() == ()) == (runs != "abcde")


@pytest.mark.parametrize("kind", ["llm_429", "llm_5xx", "hang"])
def test_a_model_that_does_not_answer(kind: str) -> None:
    injector = _injector(kind, "model")
    with pytest.raises(ToolError):
        faulty_model(lambda call: call.arguments, injector, sleep=Clock().sleep)(CALL)
    assert injector.silent() == ()


@pytest.mark.parametrize(
    ("sent", "arguments"),
    [('{"to": "bob", ', {"malformed": '{"to": "bob", '}), ('{"to": 1}', {"to": 1}), ("[1]", {"malformed": "[1]"})],
)
def test_a_model_that_sends_nonsense(sent: str, arguments: Wire) -> None:
    injector = _injector("llm_malformed_tool_call", "model", arguments=sent)
    assert faulty_model(lambda call: call.arguments, injector, sleep=Clock().sleep)(CALL) == arguments
    assert injector.silent() == ()


def test_without_a_fault_nothing_is_changed_and_nothing_is_on_record() -> None:
    injector, server = _injector(None), Server()
    send, clock = _line(injector, server)
    assert [send(CALL), send(CALL)] == [Server()(CALL), {**Server()(CALL), **_second()}]
    assert faulty_list(lambda: TOOLS, injector, server="payments")() is TOOLS
    assert faulty_context(lambda call: {"tenant": "acme"}, injector)(CALL) == {"tenant": "acme"}
    assert faulty_redaction(lambda call, shown: shown, injector)(CALL, "text") == "text"
    assert faulty_order("abc", injector) == ("a", "b", "c")
    assert (clock.now(), injector.log.events()) == (0.0, ())


def _second() -> Wire:
    server = Server()
    server(CALL)
    return server(CALL)


def transfer(to: str, *parts: int, note: str = "") -> str:
    """A plain Python tool."""
    return f"{sum(parts)} to {to} {note}".strip()


def test_a_plain_function_is_a_tool_on_the_line() -> None:
    assert faulty_function(transfer, _injector(None), server="s")("bob", 1, 2, note="thanks") == "3 to bob thanks"
    injector = _injector("rate_limit", when={"nth": 2})
    send = faulty_function(transfer, injector, server="s")
    assert send("bob", 1) == "1 to bob"
    with pytest.raises(ToolError, match="transfer: rate_limit"):
        send("bob", 1)
    assert [event.tool for event in injector.log.events("fault_fired")] == ["transfer"]
    with pytest.raises(TypeError):
        send()
    poisoned = faulty_function(transfer, _injector("result_injection"), server="s")("bob", 1)
    assert str(poisoned).startswith("1 to bob") and "also call transfer" in str(poisoned)

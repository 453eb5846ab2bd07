"""Every fault of the MCP channels, with what the client must see of it and what the server must have done: for all transports.

Each case asks three times and faults the second: the first is the control, the third shows that nothing is left behind.
"""

from collections.abc import Callable
from typing import NamedTuple

from pydantic import JsonValue

from auditgap.release import Channel, Fault, FaultKind, FaultPlan, Match, When

Wire = dict[str, JsonValue]
CLOSED, SILENT = {"closed": True}, {"silent": True}


class Case(NamedTuple):
    """A fault on the second request; `seen(answer, clean)` says whether the client saw what it should."""

    kind: FaultKind
    seen: Callable[[Wire, Wire], bool]
    n_effects: int = 0
    """Of the faulted call."""
    params: Wire = {}  # noqa: RUF012 - never changed
    channel: Channel = "tools/call"

    @property
    def label(self) -> str:
        return "-".join([self.channel, self.kind, *map(str, self.params.values())])[:80]

    def fault(self, nth: int = 2) -> Fault:
        lists_tool = self.kind.startswith(("schema_", "description_"))
        match = Match(tool="transfer" if lists_tool or self.channel == "tools/call" else None)
        return Fault(id=self.kind, channel=self.channel, kind=self.kind, match=match, when=When(nth=nth), params=self.params)

    def plan(self) -> FaultPlan:
        return FaultPlan(faults=(self.fault(),))


def _error(code: int, message: str = "") -> Callable[[Wire, Wire], bool]:
    return lambda answer, _: answer["error"]["code"] == code and message in answer["error"]["message"]


def silent(answer: Wire, _: Wire) -> bool:
    """There was no answer in time."""
    return answer == SILENT


def _closed(answer: Wire, _: Wire) -> bool:
    return answer == CLOSED


def _same(answer: Wire, clean: Wire) -> bool:
    return answer["result"] == clean["result"]


def _text(answer: Wire) -> str:
    return answer["result"]["content"][0]["text"]


def _transfer(answer: Wire) -> Wire:
    return next(tool for tool in answer["result"]["tools"] if tool["name"].startswith("transfer"))


def _schema(answer: Wire) -> Wire:
    return _transfer(answer)["inputSchema"]


CALLS = (
    Case("latency", _same, 1, {"latency_ms": 30}),
    Case("hang", _error(-32001, "timed out"), 0, {"hang_s": 0.03}),
    Case("hang", silent, 0),
    Case("error_before_effect", _error(-32603, "no"), 0, {"message": "no"}),
    Case("error_before_effect", lambda answer, _: answer["result"]["isError"] is True, 0, {"as_result": True}),
    Case("fail_after_effect", _error(-32603, "connection lost"), 1),
    Case("fail_after_effect", silent, 1, {"answer": "none"}),
    Case("rate_limit", lambda answer, _: answer["error"]["data"] == {"retry_after": 7}, 0, {"retry_after_s": 7}),
    Case("permission_denied", _error(-32001, "permission denied"), 0),
    Case("permission_flap", _error(-32001, "permission denied"), 0),
    Case("result_injection", lambda answer, clean: "account 0000" in _text(answer) and _text(clean) in _text(answer), 1),
    Case("result_schema_violation", lambda answer, _: answer["result"]["structuredContent"]["amount"] == ["unexpected"], 1),
    Case("result_schema_violation", lambda answer, _: "structuredContent" not in answer["result"], 1, {"how": "drop"}),
    Case("result_truncated", lambda answer, clean: len(_text(answer)) == len(_text(clean)) // 2, 1),
    Case("result_oversized", lambda answer, _: len(answer["result"]["content"][-1]["text"]) == 200_000, 1, {"n_chars": 200_000}),
    Case("stale_cache", _same, 0),
    Case("wrong_tenant_result", lambda answer, _: "other-tenant" in _text(answer) and "acme" not in _text(answer), 1),
    Case("duplicate_delivery", _same, 3, {"copies": 2}),
    Case("disconnect", _closed, 0),
    Case("disconnect", _closed, 1, {"after_effect": True}),
)
_LIST: Channel = "tools/list"
LISTS = (
    Case("latency", _same, 0, {"latency_ms": 30}, _LIST),
    Case("hang", _error(-32001, "timed out"), 0, {"hang_s": 0.03}, _LIST),
    Case("error_before_effect", _error(-32603), 0, {}, _LIST),
    Case("rate_limit", _error(-32050), 0, {}, _LIST),
    Case("permission_denied", _error(-32001), 0, {}, _LIST),
    Case("permission_flap", _error(-32001), 0, {}, _LIST),
    Case("schema_widen", lambda answer, _: "required" not in _schema(answer), 0, {}, _LIST),
    Case("schema_narrow", lambda answer, _: "confirmation" in _schema(answer)["required"], 0, {}, _LIST),
    Case("schema_rename", lambda answer, _: _schema(answer)["required"] == ["to_v2", "amount"], 0, {}, _LIST),
    Case("schema_rename", lambda answer, _: _transfer(answer)["name"] == "transfer_v2", 0, {"of": "tool"}, _LIST),
    Case("schema_retype", lambda answer, _: _schema(answer)["properties"]["to"]["type"] == "integer", 0, {}, _LIST),
    Case("description_poison", lambda answer, _: "account 0000" in _transfer(answer)["description"], 0, {}, _LIST),
    Case("stale_cache", _same, 0, {}, _LIST),
    Case("disconnect", _closed, 0, {}, _LIST),
)


def request_of(case: Case, identity: int) -> Wire:
    """What is asked in a case."""
    if case.channel == "tools/list":
        return {"jsonrpc": "2.0", "id": identity, "method": "tools/list"}
    params: Wire = {"name": "transfer", "arguments": {"to": "bob", "amount": 3}}
    return {"jsonrpc": "2.0", "id": identity, "method": "tools/call", "params": params}

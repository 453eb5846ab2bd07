"""A line to a tool server, in the process, on which calls and results go wrong.

What `exchange` does to messages, this does to calls: each fault that is due wraps the call, the first of the plan outermost.
Time is the caller's `sleep`, and there is one call at a time: an answer that is overtaken is told as the answer of the next call.
"""

import functools
import inspect
import itertools
import json
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ParamSpec, cast

from pydantic import JsonValue

from auditgap.release.calls import Call, ErrorCode, Handler, ToolError, Wire
from auditgap.release.faults import Fault, FaultKind, Injector
from auditgap.release.injection.kinds import flag, number, text
from auditgap.release.injection.tampering import RESULT_KINDS, tamper_result

__all__ = ["NEVER_S", "Sleep", "faulty_calls", "faulty_function", "is_denied"]

NEVER_S = 3600.0
"""How long something that never answers holds a caller who set no timeout."""

P = ParamSpec("P")
Sleep = Callable[[float], None]


def faulty_calls(send: Handler, injector: Injector, *, server: str, sleep: Sleep) -> Handler:
    """The line: `send` is the server behind it."""
    line = _Line(injector, sleep)

    def faulty(call: Call) -> Wire:
        act = line.remembering(send)
        for fault in reversed(injector.due("tools/call", tool=call.tool, server=server)):
            act = line.wrapped(fault, act)
        return act(call)

    return faulty


def faulty_function(
    function: Callable[P, JsonValue], injector: Injector, *, server: str, sleep: Sleep = time.sleep
) -> Callable[P, JsonValue]:
    """A plain Python function on such a line: its name is the tool, what it returns is the result; a failure is a `ToolError`."""
    signature, numbers, tool = inspect.signature(function), itertools.count(1), function.__name__

    def send(call: Call) -> Wire:
        bound = inspect.BoundArguments(signature, cast("OrderedDict[str, Any]", OrderedDict(call.arguments)))
        value = function(*bound.args, **bound.kwargs)
        return {"content": [{"type": "text", "text": json.dumps(value)}], "structuredContent": {"result": value}}

    line = faulty_calls(send, injector, server=server, sleep=sleep)

    @functools.wraps(function)
    def faulty(*args: P.args, **kwargs: P.kwargs) -> JsonValue:
        arguments = dict(signature.bind(*args, **kwargs).arguments)
        result = line(Call(id=f"{tool}-{next(numbers)}", tool=tool, arguments=arguments))
        structured = result.get("structuredContent")
        return structured.get("result") if isinstance(structured, dict) else result.get("content")

    return faulty


def is_denied(fault: Fault, turns: dict[str, int]) -> bool:
    """`period` occasions denied, then as many allowed, and so on."""
    turn = turns[fault.id] = turns.get(fault.id, -1) + 1
    return (turn // max(1, int(number(fault, "period")))) % 2 == 0


class _Line:
    """What faults remember between the calls of one line."""

    def __init__(self, injector: Injector, sleep: Sleep) -> None:
        self.injector = injector
        self.sleep = sleep
        self.turns: dict[str, int] = {}
        self.answers: dict[str, tuple[Wire, Wire]] = {}
        """Arguments and answer of the last call of each tool."""
        self.last: Wire | None = None

    def remembering(self, send: Handler) -> Handler:
        """The line to the server itself."""

        def remembered(call: Call) -> Wire:
            self.last = answer = send(call)
            self.answers[call.tool] = (call.arguments, answer)
            return answer

        return remembered

    def wrapped(self, fault: Fault, send: Handler) -> Handler:
        """The line with this fault on it."""

        return lambda call: (self._instead if fault.kind in _INSTEAD else self._answered)(fault, call, send)

    def _instead(self, fault: Fault, call: Call, send: Handler) -> Wire:
        """Nothing reaches the server."""
        match fault.kind:
            case "permission_flap" if not is_denied(fault, self.turns):
                return send(call)
            case "disconnect" if flag(fault, "after_effect"):
                send(call)
            case "stale_cache":
                arguments, answer = self.answers.get(call.tool, ({}, None))
                if answer is None or (flag(fault, "same_arguments") and arguments != call.arguments):
                    return send(call)
                self._fired(fault, call)
                return answer
        self._fired(fault, call)
        if fault.kind == "hang":
            self._wait(number(fault, "hang_s") or NEVER_S, call)
            raise ToolError("timeout", f"{call.tool}: no answer")
        retry_after_s = number(fault, "retry_after_s") if fault.kind == "rate_limit" else None
        raise ToolError(_INSTEAD[fault.kind], f"{call.tool}: {fault.kind}", retry_after_s=retry_after_s)

    def _answered(self, fault: Fault, call: Call, send: Handler) -> Wire:
        """The server does its work, and something happens to the answer."""
        if fault.kind == "latency":
            self._fired(fault, call)
            answer = send(call)
            self._wait(number(fault, "latency_ms") / 1000, call)
            return answer
        overtaken = self.last
        answer = send(call)
        match fault.kind:
            case "fail_after_effect":
                self._fired(fault, call)
                self._wait(
                    number(fault, "hang_s") or NEVER_S if text(fault, "answer") == "none" else number(fault, "hang_s"), call
                )
                raise ToolError("timeout", f"{call.tool}: the answer was lost")
            case "duplicate_delivery":
                for _ in range(int(number(fault, "copies"))):
                    send(call)
                self._fired(fault, call)
            case "out_of_order":
                if overtaken is not None:
                    self._fired(fault, call)
                return overtaken or answer
            case _ if fault.kind in RESULT_KINDS:
                shown = tamper_result(answer, fault)
                if shown != answer:
                    self._fired(fault, call)
                return shown
        return answer

    def _wait(self, seconds: float, call: Call) -> None:
        patience_s = call.timeout_s if call.timeout_s is not None else seconds
        self.sleep(min(seconds, patience_s))
        if seconds > patience_s:
            raise ToolError("timeout", f"{call.tool}: no answer within {patience_s:g} s")

    def _fired(self, fault: Fault, call: Call) -> None:
        self.injector.fired(fault, call_id=call.id, tool=call.tool)


_INSTEAD: dict[FaultKind, ErrorCode] = {
    "hang": "timeout",
    "error_before_effect": "unavailable",
    "rate_limit": "rate_limited",
    "permission_denied": "permission_denied",
    "permission_flap": "permission_denied",
    "disconnect": "disconnected",
    "stale_cache": "unavailable",
}

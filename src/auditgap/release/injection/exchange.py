"""What happens to one MCP message: which faults act on it and what is seen of it. The transports are built around this.

MCP is not re-implemented: a request is watched by its method, its answer comes back from `ask`, and everything else never gets
here. So every protocol revision passes, and a message that no fault acts on leaves as the very object that came in: a transport
sends the bytes it received for it. In order:

1. `due` counts the occasion in the moment the request arrives (`Match.tool` on tools/list says which entry changes, not which
   occasion counts).
2. Faults that act before the server is asked: latency, then the first of those that answer in its place.
3. The server is asked, once or more often.
4. Faults that change the answer, then those that lose, hold or cut it, each in plan order.
5. What the agent gets is written to the event stream and, for tools and server identity, to the observer.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, cast

import anyio
from pydantic import Field, JsonValue

from auditgap.records import Number, Record
from auditgap.release.faults import Fault, FaultPlan, Injector, Match
from auditgap.release.injection.kinds import check_plan, flag, number, text
from auditgap.release.injection.mcp_wire import (
    Wire,
    arguments_of,
    error_answer,
    exact,
    name_of,
    params_of,
    refusal,
    server_of,
    tool_of,
)
from auditgap.release.injection.tampering import LIST_KINDS, RESULT_KINDS, tamper_result, tamper_tools
from auditgap.release.observation import Observation, Observer

__all__ = ["Ask", "Disconnected", "Exchange", "Limits"]

Ask = Callable[[Wire], Awaitable[Wire | None]]
"""Sends a request on and gives the answer as received; None if the transport saw the end without one."""

_N_REMEMBERED, _N_PER_TOOL = 64, 8


class Limits(Record):
    """What a proxy bears before it ends the session with an error."""

    max_message_bytes: int = Field(default=16 * 2**20, ge=1024)
    """Of one message: a line, an event or a body."""
    answer_timeout_s: Number = Field(default=300, gt=0)
    """Longest wait for an answer, or for the server to take a message."""
    max_open: int = Field(default=256, ge=1)
    """Requests that wait for an answer at the same time; one more is answered with an error."""
    max_unasked: int = Field(default=10_000, ge=1)
    """Messages of the server between two answers."""
    grace_s: Number = Field(default=1.2, ge=0)
    """For the server to end by itself when the client has gone; then it is terminated, and then killed."""

    @property
    def too_many_open(self) -> str:
        """Why one more request is refused."""
        return f"{self.max_open} requests wait for an answer, which is as many as the proxy bears; wait for some of them"

    def waited_for(self, request: Wire) -> str:
        """Why a request is given up."""
        waited = f"no answer to {request['method']} within {self.answer_timeout_s:g} s"
        return f"{waited}: the MCP server hangs, or needs a longer timeout"


class Disconnected(Exception):
    """A fault closes the connection here; the transport does it."""


class _Seen(NamedTuple):
    arguments: str
    result: Wire


class Exchange:
    """One class decides for all transports. Holds what faults remember between calls; one object per server."""

    def __init__(self, injector: Injector, *, server: str | None = None, observe: Observer | None = None) -> None:
        """Faults of other channels than tools/list and tools/call are left to the places where those pass.

        Raises:
            PlanError: a fault's channel or settings do not fit its kind.
        """
        plan = check_plan(injector.plan)
        self.injector = injector
        self.server = server
        """The name that `Match.server` speaks of: given, or the server's own once it has said it."""
        self._named = server is not None
        self._observe = observe
        self._faults = {fault.id: fault for fault in plan.faults}
        lists = tuple(fault.model_copy(update={"match": Match(server=fault.match.server)}) for fault in plan.faults)
        self._lists = Injector(FaultPlan(faults=lists, seed=plan.seed), injector.log)
        self._remembers = any(fault.kind == "stale_cache" for fault in plan.faults)
        self._first_list: Wire | None = None
        self._results: OrderedDict[str, list[_Seen]] = OrderedDict()
        self._pages: OrderedDict[str, list[JsonValue]] = OrderedDict()
        self._turns: dict[str, int] = {}
        self._answered = anyio.Event()

    def silent(self) -> tuple[str, ...]:
        """Faults of the MCP channels that never acted."""
        here = {fault.id for fault in self.injector.plan.faults if fault.channel in ("tools/list", "tools/call")}
        return tuple(fault for fault in self.injector.silent() if fault in here)

    def due(self, request: Wire) -> tuple[Fault, ...]:
        """The faults that act on this request; called once, when it arrives."""
        match request["method"]:
            case "tools/list":
                return tuple(self._faults[fault.id] for fault in self._lists.due("tools/list", server=self.server))
            case "tools/call":
                return self.injector.due("tools/call", tool=tool_of(request), server=self.server)
        return ()

    async def answer(self, request: Wire, faults: Sequence[Fault], ask: Ask) -> Wire | None:
        """What the client gets: the very object that `ask` gave if nothing acted on it, and None for no answer at all.

        Raises:
            Disconnected: a fault cuts the connection.
        """
        self._saw_request(request)
        answer = await self._decide(request, faults, ask)
        if answer is not None:
            self._saw_answer(request, answer)
            self._answered.set()
            self._answered = anyio.Event()
        return answer

    async def _decide(self, request: Wire, faults: Sequence[Fault], ask: Ask) -> Wire | None:
        for fault in faults:
            if fault.kind == "latency":
                await anyio.sleep(number(fault, "latency_ms") / 1000)
                self._fired(fault, request)
        for fault in faults:
            if (instead := await self._instead(request, fault)) is not None:
                return instead
        if (answer := await ask(request)) is None:
            return None
        for fault in faults:
            if fault.kind == "duplicate_delivery":
                await self._again(request, fault, ask)
        self._remember(request, answer)
        for fault in faults:
            answer = self._tampered(request, answer, fault)
        for fault in faults:
            if (kept := await self._delivered(request, answer, fault)) is None:
                return None
            answer = kept
        return answer

    async def _instead(self, request: Wire, fault: Fault) -> Wire | None:
        """An answer in place of the server's, or None to go on."""
        instead: Wire | None = None
        match fault.kind:
            case "hang":
                self._fired(fault, request)
                await _wait(number(fault, "hang_s"))
                return error_answer(request, -32001, "request timed out")
            case "disconnect" if not flag(fault, "after_effect"):
                self._fired(fault, request)
                raise Disconnected
            case "rate_limit":
                code, message = int(number(fault, "code")), text(fault, "message")
                instead = error_answer(request, code, message, {"retry_after": number(fault, "retry_after_s")})
            case "error_before_effect" | "permission_denied":
                instead = refusal(request, fault)
            case "permission_flap":
                turn = self._turns[fault.id] = self._turns.get(fault.id, -1) + 1
                instead = refusal(request, fault) if (turn // max(1, int(number(fault, "period")))) % 2 == 0 else None
            case "stale_cache":
                stale = self._recalled(request, fault)
                instead = None if stale is None else {"jsonrpc": "2.0", "id": request["id"], "result": stale}
        if instead is not None:
            self._fired(fault, request)
        return instead

    async def _again(self, request: Wire, fault: Fault, ask: Ask) -> None:
        for copy in range(1, 1 + int(number(fault, "copies"))):
            await ask(request | {"id": f"auditgap-{fault.id}-{request['id']}-{copy}"})
            self._fired(fault, request, copy=copy)

    def _tampered(self, request: Wire, answer: Wire, fault: Fault) -> Wire:
        result = answer.get("result")
        if not isinstance(result, dict) or result.get("resultType", "complete") != "complete":
            return answer  # an error, or a question back to the client
        shown = _shown(request, result, fault)
        if shown == result:
            return answer
        self._fired(fault, request)
        return {**answer, "result": shown}

    async def _delivered(self, request: Wire, answer: Wire, fault: Fault) -> Wire | None:
        match fault.kind:
            case "fail_after_effect":
                self._fired(fault, request)
                if text(fault, "answer") == "none":
                    return None
                await anyio.sleep(number(fault, "hang_s"))
                return error_answer(request, int(number(fault, "code")), text(fault, "message"))
            case "disconnect":
                self._fired(fault, request)
                raise Disconnected
            case "out_of_order":
                with anyio.move_on_after(number(fault, "hold_s")) as held:
                    await self._answered.wait()
                if not held.cancelled_caught:
                    self._fired(fault, request)
        return answer

    def _recalled(self, request: Wire, fault: Fault) -> Wire | None:
        if request["method"] == "tools/list":
            return None if params_of(request).get("cursor") else self._first_list
        seen = self._results.get(tool_of(request) or "", [])
        wanted = arguments_of(request)
        return next((s.result for s in reversed(seen) if not flag(fault, "same_arguments") or s.arguments == wanted), None)

    def _remember(self, request: Wire, answer: Wire) -> None:
        """Keep what `stale_cache` may give again; bounded, and only if the plan has that fault."""
        result = answer.get("result")
        if not isinstance(result, dict) or not self._remembers:
            return
        if request["method"] == "tools/list" and not params_of(request).get("cursor"):
            self._first_list = self._first_list or result
        if request["method"] == "tools/call":
            seen = self._results.setdefault(tool_of(request) or "", [])
            seen[:] = [*(s for s in seen if s.arguments != arguments_of(request)), _Seen(arguments_of(request), result)][
                -_N_PER_TOOL:
            ]
            _trim(self._results)

    def _fired(self, fault: Fault, request: Wire, **detail: JsonValue) -> None:
        self.injector.fired(fault, call_id=str(request["id"]), tool=tool_of(request) or fault.match.tool, **detail)

    def _saw_request(self, request: Wire) -> None:
        if request["method"] == "tools/call":
            self.injector.log.add(
                "call",
                call_id=str(request["id"]),
                tool=tool_of(request),
                server=self.server,
                content=exact(params_of(request).get("arguments")),
            )

    def _saw_answer(self, request: Wire, answer: Wire) -> None:
        result = answer.get("result")
        if not self._named and isinstance(result, dict) and (name := name_of(result)) is not None:
            self.server = name
        match request["method"]:
            case "tools/call":
                failed = "error" if "error" in answer else "tool_error" if _is_error(result) else "ok"
                self.injector.log.add(
                    "result",
                    call_id=str(request["id"]),
                    tool=tool_of(request),
                    server=self.server,
                    outcome=failed,
                    content=exact(result if "result" in answer else answer.get("error")),
                )
            case "tools/list" if isinstance(result, dict):
                self._saw_tools(request, result)
            case "initialize" | "server/discover" if isinstance(result, dict):
                if self._observe:
                    self._observe(Observation(what="server", server=self.server, content=exact(server_of(request, result))))

    def _saw_tools(self, request: Wire, result: Wire) -> None:
        """One list, whatever the number of pages it came in."""
        tools = result.get("tools")
        so_far = [*self._pages.pop(str(params_of(request).get("cursor")), []), *(tools if isinstance(tools, list) else [])]
        if result.get("nextCursor") is not None:
            self._pages[str(result["nextCursor"])] = so_far
            _trim(self._pages)
            return
        content = exact(so_far)
        self.injector.log.add("list", call_id=str(request["id"]), server=self.server, content=content)
        if self._observe:
            kept = {name: result[name] for name in ("ttlMs", "cacheScope") if name in result}
            self._observe(Observation(what="tools", server=self.server, content={"tools": content, **kept}))


def _shown(request: Wire, result: Wire, fault: Fault) -> Wire:
    tools = result.get("tools")
    if fault.kind in LIST_KINDS and isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools):
        return {**result, "tools": [*tamper_tools(cast("list[Wire]", tools), fault)]}
    if fault.kind in RESULT_KINDS and request["method"] == "tools/call":
        return tamper_result(result, fault)
    return result


def _is_error(result: JsonValue) -> bool:
    return isinstance(result, dict) and result.get("isError") is True


def _trim(remembered: OrderedDict[str, list[_Seen]] | OrderedDict[str, list[JsonValue]]) -> None:
    while len(remembered) > _N_REMEMBERED:
        remembered.popitem(last=False)


async def _wait(seconds: float) -> None:
    await (anyio.sleep(seconds) if seconds else anyio.sleep_forever())

"""Faults in the process: wrap a callable, and what it does goes wrong as the plan says.

The only place for faults of the controls themselves: authorisation context, approval, audit sink, redaction, rollback, monitor
and the order of the middleware. Lists of tools and the model can be faulted here too, for fast tests, and so can calls (`line`);
inside an unmodified MCP server `mcp_middleware` does that.

Every wrapper reports a fault as fired after it has acted, and only if it changed something.
"""

import json
from collections.abc import Callable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

from auditgap.release.calls import Call, ToolError, Wire
from auditgap.release.faults import Channel, FaultPlan, Injector, Match
from auditgap.release.injection.kinds import items, number, text
from auditgap.release.injection.line import NEVER_S, Sleep, is_denied
from auditgap.release.injection.tampering import LIST_KINDS, tamper_tools

__all__ = [
    "faulty_context",
    "faulty_list",
    "faulty_model",
    "faulty_order",
    "faulty_redaction",
    "faulty_service",
]

P = ParamSpec("P")
R = TypeVar("R")


def faulty_list(list_tools: Callable[[], list[Wire]], injector: Injector, *, server: str) -> Callable[[], list[Wire]]:
    """A list of tools that drifts, is poisoned, or stays as it was."""
    faults = {fault.id: fault for fault in injector.plan.faults if fault.channel == "tools/list"}
    lists = tuple(fault.model_copy(update={"match": Match(server=fault.match.server)}) for fault in faults.values())
    occasions = Injector(
        FaultPlan(faults=lists, seed=injector.plan.seed), injector.log
    )  # a tool to match is an entry, not an occasion
    first: list[list[Wire]] = []

    def faulty() -> list[Wire]:
        tools = list_tools()
        first.append(tools)
        for due in occasions.due("tools/list", (*LIST_KINDS, "stale_cache"), server=server):
            fault = faults[due.id]
            shown = first[0] if fault.kind == "stale_cache" else tamper_tools(tools, fault)
            if shown != tools:
                injector.fired(fault, tool=fault.match.tool)
            tools = shown
        return tools

    return faulty


def faulty_service(
    ask: Callable[Concatenate[Call, P], R], injector: Injector, *, channel: Channel, sleep: Sleep
) -> Callable[Concatenate[Call, P], R]:
    """A service that a control needs (approval, audit sink, rollback, monitor) and that is slow, hangs or is down."""

    def faulty(call: Call, *args: P.args, **kwargs: P.kwargs) -> R:
        for fault in injector.due(channel, tool=call.tool):
            if fault.kind == "latency":
                sleep(number(fault, "latency_ms") / 1000)
                injector.fired(fault, call_id=call.id, tool=call.tool)
                continue
            sleep((number(fault, "hang_s") or NEVER_S) if fault.kind == "hang" else 0.0)
            injector.fired(fault, call_id=call.id, tool=call.tool)
            raise ToolError("timeout" if fault.kind == "hang" else "unavailable", fault.kind)
        return ask(call, *args, **kwargs)

    return faulty


def faulty_redaction(redact: Callable[[Call, str], str], injector: Injector) -> Callable[[Call, str], str]:
    """A redaction that lets everything through."""

    def faulty(call: Call, shown: str) -> str:
        redacted = redact(call, shown)
        for fault in injector.due("redaction", ("redaction_off",), tool=call.tool):
            if redacted != shown:
                injector.fired(fault, call_id=call.id, tool=call.tool)
            redacted = shown
        return redacted

    return faulty


def faulty_context(context: Callable[[Call], Wire | None], injector: Injector) -> Callable[[Call], Wire | None]:
    """An authorisation context that is missing, old, another tenant's, or without its roles."""
    earlier: list[Wire | None] = []
    turns: dict[str, int] = {}

    def faulty(call: Call) -> Wire | None:
        given = context(call)
        earlier.append(given)
        for fault in injector.due("authorisation", tool=call.tool):
            shown = given
            match fault.kind:
                case "authz_context_missing":
                    shown = None
                case "authz_context_stale":
                    shown = earlier[0]
                case "authz_context_swapped_tenant":
                    shown = {**(given or {}), "tenant": text(fault, "tenant")}
                case "permission_denied":
                    shown = {**(given or {}), "roles": []}
                case "permission_flap":
                    shown = {**(given or {}), "roles": []} if is_denied(fault, turns) else given
            if shown != given:
                injector.fired(fault, call_id=call.id, tool=call.tool)
            given = shown
        return given

    return faulty


def faulty_order(names: Sequence[str], injector: Injector) -> tuple[str, ...]:
    """The names in the order to run: those that a fault lists change places among themselves; an empty list reverses all."""
    order = tuple(names)
    for fault in injector.due("middleware", ("middleware_reordered",)):
        wanted = [str(name) for name in items(fault, "order")]
        turned = iter([name for name in wanted if name in order] or reversed(order))
        shown = tuple(next(turned) if not wanted or name in wanted else name for name in order)
        if shown != order:
            injector.fired(fault, order=list(shown))
        order = shown
    return order


def faulty_model(propose: Callable[[Call], Wire], injector: Injector, *, sleep: Sleep) -> Callable[[Call], Wire]:
    """A model that proposes the arguments of a call, and is overloaded, down, late or malformed.

    Arguments that are not a JSON object come as `{"malformed": text}`.
    """

    def faulty(call: Call) -> Wire:
        arguments = propose(call)
        for fault in injector.due("model", tool=call.tool):
            if fault.kind == "latency":
                sleep(number(fault, "latency_ms") / 1000)
            elif fault.kind == "llm_malformed_tool_call":
                arguments = _parsed(text(fault, "arguments"))
            else:
                sleep((number(fault, "hang_s") or NEVER_S) if fault.kind == "hang" else 0.0)
            injector.fired(fault, call_id=call.id, tool=call.tool)
            if fault.kind not in ("latency", "llm_malformed_tool_call"):
                raise ToolError("rate_limited" if fault.kind == "llm_429" else "unavailable", fault.kind)
        return arguments

    return faulty


def _parsed(sent: str) -> Wire:
    try:
        arguments = json.loads(sent)
    except ValueError:
        arguments = None
    return arguments if isinstance(arguments, dict) else {"malformed": sent}

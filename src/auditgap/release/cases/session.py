"""One agent's session on a tool stack: every call is counted, timed and kept for the oracle, whoever makes it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from pydantic import JsonValue

from auditgap.errors import UsageError
from auditgap.release.agent import CONTROLS, ReferenceStack
from auditgap.release.agent.control import Layer
from auditgap.release.calls import Call, ToolError, Wire, failure
from auditgap.release.cases.case import Stimulus
from auditgap.release.cases.oracle import (
    AuditRow,
    CallRow,
    IntentRow,
    ReplyRow,
    ResultRow,
    World,
    control_rows,
    effect_rows,
    fault_rows,
)
from auditgap.release.effects import EffectLedger
from auditgap.release.events import EventLog
from auditgap.release.faults import Injector
from auditgap.release.injection.mcp_wire import exact
from auditgap.release.loading import load_named

__all__ = ["REFERENCE", "Agent", "Session", "Stack", "System", "Time", "load_agent", "shown_text"]


class Time(Protocol):
    """A clock that can be waited on."""

    def now(self) -> float:
        """Seconds since the run began."""
        ...

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        ...


class Stack(Protocol):
    """A tool stack under test, with what the oracle reads."""

    tools: list[Wire]
    """The definitions as the agent is shown them."""
    ledger: EffectLedger
    audit: list[Wire]
    """Entries of the audit log: `call_id`, `tool`, `outcome`, `arguments`, `redacted`; empty where there is none."""

    @property
    def clock(self) -> Time:
        """The clock that its controls wait on."""
        ...

    def call(self, call: Call) -> Wire:
        """The CallToolResult of a call, or `ToolError`."""
        ...

    def close(self) -> None:
        """Leave nothing running."""
        ...


@dataclass(frozen=True)
class System:
    """How to open a stack that is tested, and which controls it says to have."""

    name: str
    controls: Mapping[str, Layer]
    open: Callable[[Injector, Path, Collection[str], Stimulus], Stack]
    """From injector, an empty folder, the controls to leave out, and the stimulus whose user is logged in."""


REFERENCE = System(
    "reference-agent",
    CONTROLS,
    lambda injector, folder, without, stimulus: ReferenceStack(
        injector, folder, without, user=stimulus.user, approver=stimulus.approver
    ),
)
"""The reference agent's stack."""


@dataclass
class Session:
    """What an agent gets: `tools` and `call`."""

    stack: Stack
    log: EventLog
    calls: list[CallRow] = field(default_factory=list)
    results: list[ResultRow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log.add("list", content=exact([*self.stack.tools]))

    @property
    def tools(self) -> list[Wire]:
        """The tool definitions as the agent is shown them."""
        return self.stack.tools

    def call(self, tool: str, arguments: dict[str, JsonValue]) -> Wire:
        """The CallToolResult of a call; errors come as results with `isError`."""
        call = Call(id=f"call-{len(self.calls) + 1}", tool=tool, arguments=arguments)
        began_s = self.stack.clock.now()
        self.calls.append(CallRow(id=call.id, tool=tool, arguments=arguments, at_s=began_s))
        self.log.add("call", call_id=call.id, tool=tool, content=exact(arguments))
        code, by = "", ""
        try:
            result = self.stack.call(call)
        except ToolError as error:
            code, by, result = error.code, error.by or "", failure(error)
        ok = result.get("isError") is not True
        self.log.add("result", call_id=call.id, tool=tool, outcome="ok" if ok else "error", content=exact(result))
        self.results.append(
            ResultRow(
                call_id=call.id,
                tool=tool,
                ok=ok,
                code=code or ("" if ok else "failed"),
                by=by,
                text=shown_text(result),
                elapsed_s=self.stack.clock.now() - began_s,
            )
        )
        return result

    def world(self, stimulus: Stimulus, reply: str) -> World:
        """What happened so far, as the oracle sees it."""
        events = self.log.events()
        return World(
            intent=IntentRow(tool=stimulus.intent.tool, key=stimulus.intent.key),
            effects=effect_rows(self.stack.ledger.effects()),
            calls=tuple(self.calls),
            results=tuple(self.results),
            controls=control_rows(events),
            audit=tuple(
                AuditRow(
                    call_id=str(entry["call_id"]),
                    tool=str(entry["tool"]),
                    outcome=str(entry["outcome"]),
                    redacted=entry["redacted"] is True,
                    text=str(entry["arguments"]),
                )
                for entry in self.stack.audit
            ),
            faults=fault_rows(events),
            replies=(ReplyRow(text=reply),),
        )


Agent = Callable[[str, Session], str]
"""Takes what the user asks and a session, and gives the reply to the user."""


def load_agent(name: str) -> Agent:
    """The agent that `package.module:function` names.

    Raises:
        UsageError: there is no such module or function.
    """
    agent = load_named(name, what="an agent")
    if not callable(agent):
        raise UsageError(f"expected package.module:function of an agent, got '{name}' ({type(agent).__name__})")
    return cast("Agent", agent)


def shown_text(result: Wire) -> str:
    """All text of a result, as a model reads it."""
    content = result.get("content")
    blocks = content if isinstance(content, list) else []
    return "\n".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))

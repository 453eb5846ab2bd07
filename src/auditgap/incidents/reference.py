"""The reference agent in four parts - model, tools, middleware, policy - so that two releases of it can differ in one of them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from auditgap.errors import UsageError, nearest
from auditgap.incidents.releases import Assembled, Release
from auditgap.records.incident import Component
from auditgap.release.agent import CONTROLS, SERVER, ReferenceStack
from auditgap.release.agent import controls as c
from auditgap.release.agent.backend import Backend
from auditgap.release.agent.context import CONTEXT_SCHEMA, DIRECTORY
from auditgap.release.agent.control import Control
from auditgap.release.agent.reference import TOKEN_LIFE_S, WATCH_LIST, _around
from auditgap.release.agent.tools import TOOLS
from auditgap.release.calls import Call, Wire
from auditgap.release.capture import component
from auditgap.release.capture.component import manifest
from auditgap.release.cases import Agent, System
from auditgap.release.effects import EffectLedger
from auditgap.release.faults import Injector
from auditgap.release.injection.in_process import faulty_list, faulty_order, faulty_service
from auditgap.release.injection.line import faulty_calls

__all__ = ["Model", "Policy", "Tools", "reference_release"]


@dataclass(frozen=True)
class Model:
    """Who makes the calls; without an agent, the worst calls of the stimulus."""

    id: str = "scripted"
    agent: Agent | None = None


@dataclass(frozen=True)
class Tools:
    """The tool layer: the definitions that are listed and pinned, and the server that does the work."""

    definitions: list[Wire] = field(default_factory=lambda: TOOLS)
    backend: Callable[[EffectLedger], Backend] = Backend
    version: str = "1"
    """Of the server."""


@dataclass(frozen=True)
class Policy:
    """Who may do what, and whose payments are suspicious."""

    directory: Mapping[str, tuple[str, frozenset[str]]] = field(default_factory=lambda: DIRECTORY)
    watch_list: frozenset[str] = WATCH_LIST


@dataclass
class _Stack(ReferenceStack):
    """The tool path of one run, built from parts."""

    parts: Mapping[Component, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tools, chain = cast("Tools", self.parts["tool"]), cast("tuple[str, ...]", self.parts["middleware"])
        if unknown := [name for name in (*chain, *self.without) if name not in CONTROLS]:
            raise UsageError(f"no control '{unknown[0]}'{nearest(unknown[0], CONTROLS)}")
        self.ledger = EffectLedger(self.folder / "effects.db")
        self._backend = tools.backend(self.ledger)
        self.tools = faulty_list(lambda: tools.definitions, self.injector, server=SERVER)()
        self._line = faulty_calls(self._backend.call, self.injector, server=SERVER, sleep=self.clock.sleep)
        self._configured = tuple(name for name in chain if name not in self.without)
        self._running = faulty_order(self._configured, self.injector)
        controls = self._controls()
        self._handler = self._line
        for name in reversed(self._running):
            self._handler = _around(controls[name], self._handler)

    def _controls(self) -> dict[str, Control]:
        log, tools, policy = self.injector.log, cast("Tools", self.parts["tool"]), cast("Policy", self.parts["policy"])
        watch = faulty_service(_suspicion(policy.watch_list), self.injector, channel="monitor", sleep=self.clock.sleep)
        parts = super()._controls()
        ours = (
            c.ChainOrder(log, configured=self._configured, running=lambda: self._running),
            c.Monitor(log, score=watch),
            c.Pinning(log, pinned=c.pin(tools.definitions), listed=lambda: self.tools),
            c.ResultGuard(log, schemas={str(tool["name"]): cast("Wire", tool["outputSchema"]) for tool in tools.definitions}),
        )
        gate = parts.get(c.Authorisation.id)
        if isinstance(gate, c.Authorisation):
            gate.directory = policy.directory
        return parts | {control.id: control for control in ours}

    def _issue_context(self, call: Call) -> Wire | None:
        tenant, roles = cast("Policy", self.parts["policy"]).directory[self.user]
        return {"tenant": tenant, "user": self.user, "roles": [*sorted(roles)], "expires_at_s": self.clock.now() + TOKEN_LIFE_S}


def reference_release(
    name: str,
    *,
    model: Model = Model(),
    tools: Tools = Tools(),
    middleware: Collection[str] = tuple(CONTROLS),
    policy: Policy = Policy(),
) -> Release:
    """A release of the reference agent, with the manifest that follows from its parts."""
    found = [
        component("model", "main", {"id": model.id}, source=name),
        component("server", SERVER, {"name": SERVER, "version": tools.version}, source=name),
        component("authorisation", "main", _policy(policy), source=name),
        component("context_schema", "main", CONTEXT_SCHEMA, source=name),
    ]
    found += [component("tool", f"{SERVER}/{tool['name']}", tool, source=name) for tool in tools.definitions]
    found += [component("middleware", control, {"config": None}, source=name, order=n) for n, control in enumerate(middleware)]
    parts: dict[Component, object] = {"model": model, "tool": tools, "middleware": tuple(middleware), "policy": policy}
    return Release(manifest(name, "declared", found), parts, _assemble)


def _assemble(parts: Mapping[Component, object]) -> Assembled:
    chain = cast("tuple[str, ...]", parts["middleware"])
    system = System(
        "reference-agent",
        {control: CONTROLS[control] for control in chain},
        lambda injector, folder, without, stimulus: _opened(injector, folder, without, stimulus.user, stimulus.approver, parts),
    )
    return Assembled(system, cast("Model", parts["model"]).agent)


def _opened(
    injector: Injector, folder: Path, without: Collection[str], user: str, approver: bool, parts: Mapping[Component, object]
) -> _Stack:
    return _Stack(injector, folder, without, user=user, approver=approver, parts=parts)


def _policy(policy: Policy) -> dict[str, JsonValue]:
    directory: dict[str, JsonValue] = {
        user: {"tenant": tenant, "roles": [*sorted(roles)]} for user, (tenant, roles) in sorted(policy.directory.items())
    }
    return {"directory": directory, "watch_list": [*sorted(policy.watch_list)]}


def _suspicion(watch_list: frozenset[str]) -> Callable[[Call], float]:
    """The reference agent's rule for its monitor, with this watch list."""

    def score(call: Call) -> float:
        legs = call.arguments.get("legs")
        asked = [call.arguments, *(legs if isinstance(legs, list) else [])]
        return 0.9 if any(isinstance(part, dict) and str(part.get("to")) in watch_list for part in asked) else 0.0

    return score

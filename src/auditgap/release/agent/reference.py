"""The reference agent's tool path: a payments server behind thirteen controls, every one of which can be left out.

    agent -> chain order -> monitor -> redaction -> audit -> rate limit -> pinning -> validator -> authorisation -> approval
          -> rollback -> result guard -> retry -> idempotency -> line -> payments server -> effect ledger

A call goes down this chain and its result comes back up. `ReferenceStack` puts the chain together, of these parts or of others;
the injector sits on the line and on each service that a control asks.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from auditgap.errors import UsageError, nearest
from auditgap.release.agent import controls as c
from auditgap.release.agent.backend import Backend
from auditgap.release.agent.clock import Clock
from auditgap.release.agent.context import DIRECTORY
from auditgap.release.agent.control import Control, Layer
from auditgap.release.agent.text import redact
from auditgap.release.agent.tools import TOOLS
from auditgap.release.calls import Call, Handler, ToolError, Wire
from auditgap.release.effects import EffectLedger
from auditgap.release.faults import Injector
from auditgap.release.injection.in_process import (
    faulty_context,
    faulty_list,
    faulty_order,
    faulty_redaction,
    faulty_service,
)
from auditgap.release.injection.line import faulty_calls

__all__ = ["CONTROLS", "SERVER", "Policy", "ReferenceStack", "Tools"]

SERVER = "payments"
TOKEN_LIFE_S = 900.0

_CHAIN: tuple[type[Control], ...] = (
    c.ChainOrder,
    c.Monitor,
    c.Redaction,
    c.Audit,
    c.RateLimit,
    c.Pinning,
    c.Validator,
    c.Authorisation,
    c.Approval,
    c.Rollback,
    c.ResultGuard,
    c.Retry,
    c.Idempotency,
)
CONTROLS: dict[str, Layer] = {control.id: control.layer for control in _CHAIN}
"""Controls by id, outermost first, with the layer where each holds."""


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
    watch_list: frozenset[str] = frozenset({"mule-7"})

    def suspicion(self, call: Call) -> float:
        """A rule for a monitor: money for an account on the watch list is suspicious."""
        legs = call.arguments.get("legs")
        asked = [call.arguments, *(legs if isinstance(legs, list) else [])]
        return 0.9 if any(isinstance(part, dict) and str(part.get("to")) in self.watch_list for part in asked) else 0.0


@dataclass
class ReferenceStack:
    """The tool path of one run. `without` names controls that this release lacks."""

    injector: Injector
    folder: Path
    without: Collection[str] = ()
    user: str = "ana"
    approver: bool = True
    """What the person says who is asked for approval."""
    toolset: Tools = Tools()
    chain: tuple[str, ...] = tuple(CONTROLS)
    """Controls as configured, outermost first."""
    policy: Policy = Policy()
    audit: list[Wire] = field(default_factory=list)
    """The entries of the audit log: what an operator could read afterwards."""
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        if unknown := [name for name in (*self.chain, *self.without) if name not in CONTROLS]:
            raise UsageError(f"no control '{unknown[0]}'{nearest(unknown[0], CONTROLS)}")
        self.ledger = EffectLedger(self.folder / "effects.db")
        self._backend = self.toolset.backend(self.ledger)
        self.tools = faulty_list(lambda: self.toolset.definitions, self.injector, server=SERVER)()
        """The definitions as the agent was shown them when the session began."""
        self._line = faulty_calls(self._backend.call, self.injector, server=SERVER, sleep=self.clock.sleep)
        self._configured = tuple(name for name in self.chain if name not in self.without)
        self._running = faulty_order(self._configured, self.injector)
        controls = self._controls()
        self._handler = self._line
        for name in reversed(self._running):
            self._handler = _around(controls[name], self._handler)

    def call(self, call: Call) -> Wire:
        """The result of a call that went down the chain.

        Raises:
            ToolError: a control refused, or the call failed.
        """
        return self._handler(call)

    def close(self) -> None:
        """Close the server."""
        self._backend.close()

    def _controls(self) -> dict[str, Control]:
        log, backend, clock, definitions = self.injector.log, self._backend, self.clock, self.toolset.definitions
        controls = (
            c.ChainOrder(log, configured=self._configured, running=lambda: self._running),
            c.Monitor(log, score=faulty_service(self.policy.suspicion, self.injector, channel="monitor", sleep=clock.sleep)),
            c.Redaction(log, redact=faulty_redaction(lambda call, shown: redact(shown), self.injector)),
            c.Audit(log, write=faulty_service(self._write_audit, self.injector, channel="audit", sleep=clock.sleep)),
            c.RateLimit(log, now=clock.now),
            c.Pinning(log, pinned=c.pin(definitions), listed=lambda: self.tools),
            c.Validator(log, listed=lambda: self.tools, account=backend.account, transferred=backend.transferred),
            c.Authorisation(
                log,
                context=faulty_context(self._issue_context, self.injector),
                directory=self.policy.directory,
                tenant_of=lambda account: backend.account(account)[0],
                now=clock.now,
            ),
            c.Approval(
                log, approve=faulty_service(lambda call: self.approver, self.injector, channel="approval", sleep=clock.sleep)
            ),
            c.Rollback(log, undo=faulty_service(backend.undo, self.injector, channel="rollback", sleep=clock.sleep)),
            c.ResultGuard(log, schemas={str(tool["name"]): cast("Wire", tool["outputSchema"]) for tool in definitions}),
            c.Retry(log, sleep=clock.sleep),
            c.Idempotency(log, find=backend.find),
        )
        return {control.id: control for control in controls}

    def _issue_context(self, call: Call) -> Wire | None:
        """A fresh context of the user who is logged in, as the identity provider would give it."""
        tenant, roles = self.policy.directory[self.user]
        return {"tenant": tenant, "user": self.user, "roles": [*sorted(roles)], "expires_at_s": self.clock.now() + TOKEN_LIFE_S}

    def _write_audit(self, call: Call, entry: Wire) -> None:
        self.audit.append({"call_id": call.id, **entry})


def _around(control: Control, inner: Handler) -> Handler:
    """The control as a handler; it is on record as passed through even if what is inside it fails."""

    def handle(call: Call) -> Wire:
        try:
            return control.handle(call, inner)
        except ToolError as error:
            if error.by != control.id:
                control.says(call, "error", code=error.code)
            raise

    return handle

"""The chain runs in the order that was configured, or not at all."""

from collections.abc import Callable
from typing import final

from auditgap.release.agent.control import Control
from auditgap.release.calls import Call, Handler, Wire
from auditgap.release.events import EventLog

__all__ = ["ChainOrder"]


@final
class ChainOrder(Control):
    """Refuses every call when the controls stand in another order: approval before validation approves what it cannot read."""

    id = "CTL-chain-order"
    layer = "monitor"

    def __init__(self, log: EventLog, *, configured: tuple[str, ...], running: Callable[[], tuple[str, ...]]) -> None:
        super().__init__(log)
        self.configured = configured
        self.running = running

    def handle(self, call: Call, proceed: Handler) -> Wire:
        if self.running() != self.configured:
            raise self.refused(call, "the middleware runs in another order than configured")
        self.says(call, "allowed")
        return proceed(call)

"""A payment is made once, however often it is sent."""

from collections.abc import Callable
from dataclasses import replace
from typing import final

from auditgap.release.agent.control import Control
from auditgap.release.agent.tools import WRITES
from auditgap.release.calls import Call, Handler, Wire
from auditgap.release.events import EventLog

__all__ = ["Idempotency"]


@final
class Idempotency(Control):
    """Gives each write a key made from what it pays, and asks whether it was done before sending it again."""

    id = "CTL-idempotency"
    layer = "after_the_fact"

    def __init__(self, log: EventLog, *, find: Callable[[Call], Wire | None]) -> None:
        super().__init__(log)
        self.find = find
        self._sent: set[str] = set()

    def handle(self, call: Call, proceed: Handler) -> Wire:
        if call.tool not in WRITES:
            self.says(call, "allowed")
            return proceed(call)
        key = f"{(call.context or {}).get('tenant')}:{call.tool}:{call.arguments.get('reference')}"
        keyed = replace(call, meta={**call.meta, "idempotency_key": key})
        if key in self._sent and (done := self.find(keyed)) is not None:
            self.says(call, "verified")
            return {**done, "_meta": {"call_id": call.id}}
        self._sent.add(key)
        result = proceed(keyed)
        self.says(call, "allowed")
        return result

"""Secrets leave the server neither in results nor in logs."""

from collections.abc import Callable
from dataclasses import replace
from typing import final

from auditgap.release.agent.control import Control
from auditgap.release.agent.text import map_texts
from auditgap.release.calls import Call, Handler, Wire
from auditgap.release.events import EventLog

__all__ = ["CANARY", "Redaction"]

CANARY = "card 5555 5555 5555 4444, key sk_live_canary0000000000"


@final
class Redaction(Control):
    """Redacts what is logged and what is answered. A canary goes through first: if it comes out readable, nothing else goes."""

    id = "CTL-redaction"
    layer = "after_the_fact"

    def __init__(self, log: EventLog, *, redact: Callable[[Call, str], str]) -> None:
        super().__init__(log)
        self.redact = redact

    def handle(self, call: Call, proceed: Handler) -> Wire:
        if any(secret in self.redact(call, CANARY) for secret in ("5555", "canary")):
            raise self.refused(call, "redaction lets a canary secret through", "unavailable")
        loggable = map_texts(call.arguments, lambda text: self.redact(call, text))
        result = proceed(replace(call, loggable=loggable))
        shown = map_texts(result, lambda text: self.redact(call, text))
        outcome = "allowed" if (loggable, shown) == (call.arguments, result) else "redacted"
        self.log.add("redaction", name=self.id, call_id=call.id, tool=call.tool, outcome=outcome)
        self.says(call, outcome)
        return shown

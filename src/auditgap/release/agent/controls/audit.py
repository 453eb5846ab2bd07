"""Every call is on record before it acts, with redacted arguments."""

from collections.abc import Callable
from typing import final

from pydantic import JsonValue

from auditgap.release.agent.control import Control
from auditgap.release.calls import Call, Handler, ToolError, Wire
from auditgap.release.events import EventLog
from auditgap.release.injection.mcp_wire import exact

__all__ = ["Audit"]


@final
class Audit(Control):
    """Writes an entry before and after the call. If the first cannot be written, the call does not happen."""

    id = "CTL-audit"
    layer = "after_the_fact"

    def __init__(self, log: EventLog, *, write: Callable[[Call, Wire], None]) -> None:
        super().__init__(log)
        self.write = write

    def handle(self, call: Call, proceed: Handler) -> Wire:
        redacted = call.loggable is not None
        try:
            self._entry(call, "asked", call.loggable if redacted else call.arguments, redacted=redacted)
        except ToolError as error:
            raise self.refused(call, f"the audit log cannot be written ({error})", "unavailable") from error
        try:
            result = proceed(call)
        except ToolError as error:
            self._outcome(call, error.code)
            raise
        self.says(call, "allowed" if self._outcome(call, "answered") else "incomplete")
        return result

    def _outcome(self, call: Call, outcome: str) -> bool:
        """False if the second entry was lost: what was done is done, and to tell the agent otherwise would not undo it."""
        try:
            self._entry(call, outcome, None, redacted=True)
        except ToolError:
            return False
        return True

    def _entry(self, call: Call, outcome: str, arguments: JsonValue, *, redacted: bool) -> None:
        self.write(call, {"tool": call.tool, "outcome": outcome, "arguments": arguments, "redacted": redacted})
        self.log.add(
            "audit",
            name=self.id,
            call_id=call.id,
            tool=call.tool,
            outcome=outcome,
            content=exact(arguments),
            detail={"redacted": redacted},
        )

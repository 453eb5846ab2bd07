"""What the agent is told and what happened agree: a call that failed leaves nothing behind."""

from collections.abc import Callable
from typing import final

from auditgap.release.agent.control import Control
from auditgap.release.agent.tools import WRITES
from auditgap.release.calls import Call, Handler, ToolError, Wire
from auditgap.release.events import EventLog

__all__ = ["Rollback"]


@final
class Rollback(Control):
    """Undoes a failed write. If that fails too, every further write is refused until a person has looked."""

    id = "CTL-rollback"
    layer = "after_the_fact"

    def __init__(self, log: EventLog, *, undo: Callable[[Call], int]) -> None:
        super().__init__(log)
        self.undo = undo
        self._stopped_by: str | None = None

    def handle(self, call: Call, proceed: Handler) -> Wire:
        if call.tool not in WRITES:
            self.says(call, "allowed")
            return proceed(call)
        if self._stopped_by:
            raise self.refused(call, f"writes are stopped: call {self._stopped_by} could not be rolled back", "unavailable")
        try:
            result = proceed(call)
        except ToolError:
            self._roll_back(call)
            raise
        self.says(call, "allowed")
        return result

    def _roll_back(self, call: Call) -> None:
        try:
            n_undone = self.undo(call)
        except ToolError:
            self._stopped_by = call.id
            self.log.add("rollback", name=self.id, call_id=call.id, tool=call.tool, outcome="failed")
            self.says(call, "escalated")
            return
        self.log.add("rollback", name=self.id, call_id=call.id, tool=call.tool, outcome="ok", detail={"undone": n_undone})
        self.says(call, "undone" if n_undone else "allowed")

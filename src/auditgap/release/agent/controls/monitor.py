"""Nothing happens unwatched, and what looks dangerous does not happen."""

from collections.abc import Callable
from typing import final

from auditgap.release.agent.control import Control
from auditgap.release.calls import Call, Handler, ToolError, Wire
from auditgap.release.events import EventLog

__all__ = ["Monitor"]

THRESHOLD = 0.5


@final
class Monitor(Control):
    """Asks a monitor for the suspicion of the call, in [0, 1]. A monitor that is down is a refusal, not a zero."""

    id = "CTL-monitor"
    layer = "monitor"

    def __init__(self, log: EventLog, *, score: Callable[[Call], float]) -> None:
        super().__init__(log)
        self.score = score

    def handle(self, call: Call, proceed: Handler) -> Wire:
        try:
            suspicion = self.score(call)
        except ToolError as error:
            raise self.refused(call, f"the monitor is down ({error})", "unavailable") from error
        self.log.add("monitor", name=self.id, call_id=call.id, tool=call.tool, detail={"suspicion": suspicion})
        if suspicion >= THRESHOLD:
            raise self.refused(call, f"suspicion {suspicion:g} is at or over {THRESHOLD:g}")
        self.says(call, "allowed")
        return proceed(call)

"""Waiting has an end, and what failed for a moment is tried again."""

from collections.abc import Callable
from dataclasses import replace
from typing import final

from auditgap.release.agent.control import Control
from auditgap.release.calls import Call, ErrorCode, Handler, ToolError, Wire
from auditgap.release.events import EventLog

__all__ = ["Retry"]

TIMEOUT_S, N_ATTEMPTS, PAUSE_S, LONGEST_PAUSE_S = 5.0, 3, 1.0, 30.0
_PASSING: frozenset[ErrorCode] = frozenset({"timeout", "disconnected", "unavailable", "rate_limited"})


@final
class Retry(Control):
    """Five seconds for an answer, three attempts, and the pause that the server asks for. A denied permission is not retried."""

    id = "CTL-retry"
    layer = "after_the_fact"

    def __init__(self, log: EventLog, *, sleep: Callable[[float], None]) -> None:
        super().__init__(log)
        self.sleep = sleep

    def handle(self, call: Call, proceed: Handler) -> Wire:
        for attempt in range(1, N_ATTEMPTS + 1):
            try:
                result = proceed(replace(call, timeout_s=TIMEOUT_S))
            except ToolError as error:
                if error.code not in _PASSING or attempt == N_ATTEMPTS:
                    raise
                self.sleep(min(error.retry_after_s or PAUSE_S * 2**attempt, LONGEST_PAUSE_S))
                continue
            break
        self.says(call, "allowed" if attempt == 1 else "retried", attempts=attempt)
        return result

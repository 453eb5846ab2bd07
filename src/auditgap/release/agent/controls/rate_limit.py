"""An agent in a loop is stopped by counting."""

from collections import defaultdict, deque
from collections.abc import Callable
from typing import final

from auditgap.release.agent.control import Control
from auditgap.release.agent.tools import WRITES
from auditgap.release.calls import Call, Handler, Wire
from auditgap.release.events import EventLog

__all__ = ["RateLimit"]

MAX_READS, MAX_WRITES, WINDOW_S = 60, 5, 60.0


@final
class RateLimit(Control):
    """At most 60 reads and 5 writes in any minute."""

    id = "CTL-rate-limit"
    layer = "authz"

    def __init__(self, log: EventLog, *, now: Callable[[], float]) -> None:
        super().__init__(log)
        self.now = now
        self._seen: dict[bool, deque[float]] = defaultdict(deque)

    def handle(self, call: Call, proceed: Handler) -> Wire:
        writes = call.tool in WRITES
        seen, limit = self._seen[writes], MAX_WRITES if writes else MAX_READS
        while seen and seen[0] <= self.now() - WINDOW_S:
            seen.popleft()
        if len(seen) >= limit:
            raise self.refused(call, f"more than {limit} {'writes' if writes else 'reads'} in {WINDOW_S:g} s", "rate_limited")
        seen.append(self.now())
        self.says(call, "allowed")
        return proceed(call)

"""The tools are the ones that were evaluated, word for word."""

from collections.abc import Callable
from typing import final

from auditgap.records import canonical_json, digest_of
from auditgap.release.agent.control import Control
from auditgap.release.calls import Call, Handler, Wire
from auditgap.release.events import EventLog

__all__ = ["Pinning", "pin"]


def pin(tools: list[Wire]) -> str:
    """Digest of a server's whole set of definitions, whatever the order of the list: a renamed tool changes it too."""
    return digest_of(canonical_json(sorted(tools, key=lambda tool: str(tool.get("name")))))


@final
class Pinning(Control):
    """Refuses every call to a server whose listed definitions are not the pinned ones."""

    id = "CTL-pinning"
    layer = "validator"

    def __init__(self, log: EventLog, *, pinned: str, listed: Callable[[], list[Wire]]) -> None:
        super().__init__(log)
        self.pinned = pinned
        self.listed = listed
        self._seen: tuple[list[Wire], str] | None = None

    def handle(self, call: Call, proceed: Handler) -> Wire:
        tools = self.listed()
        if self._seen is None or self._seen[0] is not tools:
            self._seen = tools, pin(tools)
        if self._seen[1] != self.pinned:
            raise self.refused(call, "the tool definitions differ from the pinned ones")
        self.says(call, "allowed")
        return proceed(call)

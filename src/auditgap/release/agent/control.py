"""What a control is: it sees a call before and after everything inside it, and says on every call what it did."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from pydantic import JsonValue

from auditgap.release.calls import Call, ErrorCode, Handler, ToolError, Wire
from auditgap.release.events import EventLog

__all__ = ["Control", "Layer"]

Layer = Literal["validator", "authz", "approval", "after_the_fact", "monitor", "model"]
"""Where in the stack a harm is stopped."""


class Control(ABC):
    """One link of the chain. `handle` passes the call on, or raises what `refused` returns."""

    id: ClassVar[str]
    layer: ClassVar[Layer]

    def __init__(self, log: EventLog) -> None:
        self.log = log

    @abstractmethod
    def handle(self, call: Call, proceed: Handler) -> Wire:
        """The result of the call, from `proceed` or from elsewhere.

        Raises:
            ToolError: the control refuses, or something inside it failed.
        """

    def says(self, call: Call, outcome: str, **detail: JsonValue) -> None:
        """Prove to have been on the path of this call, and say what came of it."""
        self.log.add(
            "control", name=self.id, call_id=call.id, tool=call.tool, outcome=outcome, detail={"layer": self.layer, **detail}
        )

    def refused(self, call: Call, why: str, code: ErrorCode = "rejected") -> ToolError:
        """The error to raise, written down."""
        self.says(call, "denied", why=why)
        return ToolError(code, f"{self.id}: {why}", by=self.id)

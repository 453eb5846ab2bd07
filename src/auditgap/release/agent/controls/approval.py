"""A person says yes to a large payment before it is made."""

from collections.abc import Callable
from typing import final

from auditgap.release.agent.control import Control
from auditgap.release.calls import Call, Handler, ToolError, Wire
from auditgap.release.events import EventLog

__all__ = ["Approval"]

LIMIT_CENTS = 100_000


@final
class Approval(Control):
    """Asks for every payment over the limit. Nobody there, or no clear yes, is a no."""

    id = "CTL-approval"
    layer = "approval"

    def __init__(self, log: EventLog, *, approve: Callable[[Call], bool]) -> None:
        super().__init__(log)
        self.approve = approve

    def handle(self, call: Call, proceed: Handler) -> Wire:
        asks = _cents(call.arguments) > LIMIT_CENTS
        if asks:
            try:
                granted = self.approve(call)
            except ToolError as error:
                raise self.refused(call, f"nobody can be asked ({error})", "unavailable") from error
            self.log.add("approval", name=self.id, call_id=call.id, tool=call.tool, outcome="granted" if granted else "declined")
            if granted is not True:
                raise self.refused(call, "approval was declined")
        self.says(call, "approved" if asks else "allowed")
        return proceed(call)


def _cents(arguments: Wire) -> int:
    """What the call would move in all; only whole numbers are money here, the validator has read them."""
    legs = arguments.get("legs")
    amounts = (
        [leg.get("amount_cents") for leg in legs if isinstance(leg, dict)]
        if isinstance(legs, list)
        else [arguments.get("amount_cents")]
    )
    return sum(amount for amount in amounts if isinstance(amount, int))

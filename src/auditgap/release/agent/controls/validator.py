"""Arguments fit the tool's input schema and the rules of the business."""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast, final

from jsonschema import Draft202012Validator
from pydantic import JsonValue

from auditgap.release.agent.control import Control
from auditgap.release.calls import Call, Handler, ToolError, Wire
from auditgap.release.events import EventLog

__all__ = ["Validator"]

_NUMBER = re.compile(r"-?[0-9]{1,15}")


@final
class Validator(Control):
    """Checks arguments against the listed input schema, reads numbers that were sent as text, and applies the rules.

    Rules: the accounts exist and differ, the account holds the money, and a refund does not exceed what was paid.
    """

    id = "CTL-validator"
    layer = "validator"

    def __init__(
        self,
        log: EventLog,
        *,
        listed: Callable[[], list[Wire]],
        account: Callable[[str], tuple[str, int]],
        transferred: Callable[[str], int],
    ) -> None:
        super().__init__(log)
        self.listed = listed
        self.account = account
        self.transferred = transferred

    def handle(self, call: Call, proceed: Handler) -> Wire:
        tool = next((tool for tool in self.listed() if tool["name"] == call.tool), None)
        if tool is None:
            raise self.refused(call, f"no tool '{call.tool}'", "invalid")
        arguments = {name: _as_number(value) for name, value in call.arguments.items()}
        error = next(Draft202012Validator(cast("Wire", tool["inputSchema"])).iter_errors(arguments), None)
        if error is not None:
            raise self.refused(call, f"{'.'.join(map(str, error.path)) or 'arguments'}: {error.message[:200]}", "invalid")
        if broken := self._broken_rule(call.tool, arguments):
            raise self.refused(call, broken, "invalid")
        self.says(call, "allowed")
        return proceed(replace(call, arguments=arguments))

    def _broken_rule(self, tool: str, arguments: dict[str, Any]) -> str | None:
        account, asked = arguments.get("account"), arguments.get("amount_cents", 0)
        try:
            _, balance = self.account(str(account))
            if tool == "refund" and asked > (paid := self.transferred(str(arguments.get("of")))):
                return f"{paid} cents were paid under this reference"
            if tool not in ("transfer", "pay_batch"):
                return None
            legs = arguments.get("legs") or [arguments]
            for leg in legs:
                self.account(str(leg.get("to")))
        except ToolError as error:
            return str(error)
        if any(leg.get("to") == account for leg in legs):
            return "an account cannot pay itself"
        return f"the account holds {balance} cents" if sum(leg.get("amount_cents", 0) for leg in legs) > balance else None


def _as_number(value: JsonValue) -> JsonValue:
    """Models often send numbers as text; `"500"` is read as 500. What follows must therefore see the read value."""
    return int(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value

"""A result is what this tool gives, for this tenant, to this call, and it gives no orders."""

import json
import re
from typing import cast, final

from jsonschema import Draft202012Validator

from auditgap.release.agent.control import Control
from auditgap.release.agent.text import map_texts
from auditgap.release.calls import Call, Handler, Wire
from auditgap.release.events import EventLog

__all__ = ["ResultGuard"]

MAX_CHARS = 20_000
WITHHELD = "[withheld: this text reads like an instruction]"
_ORDER = re.compile(
    r"ignore (all |the )?(previous|earlier)|\b(also|now|then|must|to complete this task,?) (please )?call\b|\bcall \w+ to\b", re.I
)


@final
class ResultGuard(Control):
    """Refuses a result that is too large, breaks the output schema, answers another call or is another tenant's.

    Text that reads like an order is withheld. Patterns catch known forms only; that text equals structure catches the rest.
    """

    id = "CTL-result-guard"
    layer = "after_the_fact"

    def __init__(self, log: EventLog, *, schemas: dict[str, Wire]) -> None:
        super().__init__(log)
        self.validators = {name: Draft202012Validator(schema) for name, schema in schemas.items()}

    def handle(self, call: Call, proceed: Handler) -> Wire:
        result = proceed(call)
        if why := self._objection(call, result):
            raise self.refused(call, why)
        shown = map_texts(result, lambda text: WITHHELD if _ORDER.search(text) else text)
        self.says(call, "allowed" if shown == result else "withheld")
        return shown

    def _objection(self, call: Call, result: Wire) -> str | None:
        if (size := len(json.dumps(result))) > MAX_CHARS:
            return f"the result has {size} characters, more than {MAX_CHARS}"
        structured, meta = result.get("structuredContent"), result.get("_meta")
        if call.tool not in self.validators or not self.validators[call.tool].is_valid(structured):
            return "the result breaks the tool's output schema"
        if not isinstance(meta, dict) or meta.get("call_id") != call.id:
            return "the result answers another call"
        if call.context and cast("Wire", structured)["tenant"] != call.context["tenant"]:
            return "the result is another tenant's"
        if result.get("content") != [{"type": "text", "text": json.dumps(structured)}]:
            return "the text of the result says more or less than its structured content"
        return None

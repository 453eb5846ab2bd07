"""Who asks may do this, now, for this tenant."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, final

from jsonschema import Draft202012Validator

from auditgap.release.agent.context import CONTEXT_SCHEMA
from auditgap.release.agent.control import Control
from auditgap.release.agent.tools import ROLES
from auditgap.release.calls import Call, Handler, Wire
from auditgap.release.events import EventLog

__all__ = ["Authorisation"]


@final
class Authorisation(Control):
    """Decides on the context object, and on nothing that the agent says about itself."""

    id = "CTL-authorisation"
    layer = "authz"

    def __init__(
        self,
        log: EventLog,
        *,
        context: Callable[[Call], Wire | None],
        directory: Mapping[str, tuple[str, frozenset[str]]],
        tenant_of: Callable[[str], str],
        now: Callable[[], float],
    ) -> None:
        super().__init__(log)
        self.context = context
        self.directory = directory
        self.tenant_of = tenant_of
        self.now = now

    def handle(self, call: Call, proceed: Handler) -> Wire:
        context = self.context(call)
        if why := self._objection(call, context):
            raise self.refused(call, why, "permission_denied")
        self.says(call, "allowed")
        return proceed(replace(call, context=context))

    def _objection(self, call: Call, context: dict[str, Any] | None) -> str | None:
        if context is None:
            return "there is no context"
        if error := next(_CONTEXT.iter_errors(context), None):
            return f"the context breaks its schema: {error.message}"
        if self.now() >= context["expires_at_s"]:
            return "the context has expired"
        tenant, roles = self.directory.get(str(context["user"]), (None, frozenset()))
        if context["tenant"] != tenant or not roles.issuperset(context["roles"]):
            return "the context claims what the directory does not know of this user"
        if ROLES.get(call.tool) not in context["roles"]:
            return f"{call.tool} needs the role {ROLES.get(call.tool)}"
        if self.tenant_of(str(call.arguments.get("account"))) != tenant:
            return "the account is another tenant's"
        return None


_CONTEXT = Draft202012Validator(CONTEXT_SCHEMA)

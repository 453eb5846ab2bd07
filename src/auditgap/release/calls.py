"""One tool call in the process, and what handles it: the seam between an agent, its controls, the injector and a tool server."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pydantic import JsonValue

__all__ = ["Call", "ErrorCode", "Handler", "ToolError", "Wire", "failure"]

Wire = dict[str, JsonValue]
"""A JSON object as MCP sends it: a tool definition or a CallToolResult."""

ErrorCode = Literal[
    "timeout",
    "disconnected",
    "unavailable",
    "rate_limited",
    "permission_denied",
    "invalid",
    "rejected",
    "failed",
    "malformed",
    "internal",
]


class ToolError(Exception):
    """A call that gave no result. `timeout` and `disconnected` say nothing about whether the effect happened."""

    def __init__(self, code: ErrorCode, message: str, *, by: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code: ErrorCode = code
        self.by = by
        """The control that refused; None for the server or the line to it."""
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Call:
    """A tool call on its way; a control passes on a changed copy, never this one."""

    id: str
    """Of the logical call: its retries carry the same one."""
    tool: str
    arguments: Wire
    meta: Wire = field(default_factory=dict)
    """MCP's `_meta`: the idempotency key travels here."""
    context: Wire | None = None
    """Tenant, user, roles and expiry, as the authorisation gate accepted them."""
    loggable: Wire | None = None
    """The arguments as they may be logged; None until they were redacted."""
    timeout_s: float | None = None
    """How long the line waits for an answer; None: for ever."""


Handler = Callable[[Call], Wire]
"""Answers a call with a CallToolResult, or raises `ToolError`."""


def failure(error: ToolError) -> Wire:
    """The CallToolResult that an agent is shown for an error."""
    return {"isError": True, "content": [{"type": "text", "text": f"{error.code}: {error}"}]}

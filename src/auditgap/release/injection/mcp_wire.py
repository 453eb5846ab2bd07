"""MCP messages as plain JSON: which are watched, what they name, and the answers that a proxy gives by itself."""

import json
from typing import cast

from pydantic import JsonValue

from auditgap.release.faults import Fault
from auditgap.release.injection.kinds import flag, number, text

__all__ = [
    "Received",
    "Wire",
    "arguments_of",
    "error_answer",
    "exact",
    "json_line",
    "load",
    "name_of",
    "params_of",
    "raw_of",
    "refusal",
    "server_of",
    "tool_of",
    "watched",
]

Wire = dict[str, JsonValue]

_WATCHED = frozenset({"tools/list", "tools/call", "initialize", "server/discover"})
_VERSION_KEY = "io.modelcontextprotocol/protocolVersion"
_SERVER_KEY = "io.modelcontextprotocol/serverInfo"
_MAX_EXACT_INTEGER = 2**53


class Received(dict[str, JsonValue]):
    """A message with the bytes in which it came. Never changed in place: a changed copy is a plain dict and has no such bytes."""

    def __init__(self, message: Wire, raw: bytes) -> None:
        super().__init__(message)
        self.raw = raw


def raw_of(message: Wire) -> bytes:
    """The bytes in which a message came; one of our own making is put on a line."""
    return message.raw if isinstance(message, Received) else json_line(message)


def json_line(value: JsonValue) -> bytes:
    """Compact JSON and a newline."""
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def load(raw: bytes) -> JsonValue:
    """The JSON of a message; None if it is not JSON: such a message is passed on, not understood."""
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def watched(message: JsonValue) -> bool:
    """True for a request that faults or the observer may have to do with."""
    return isinstance(message, dict) and isinstance(message.get("id"), str | int) and message.get("method") in _WATCHED


def params_of(request: Wire) -> Wire:
    """The request's parameters; empty if it has none."""
    params = request.get("params")
    return params if isinstance(params, dict) else {}


def tool_of(request: Wire) -> str | None:
    """The tool that a tools/call names."""
    name = params_of(request).get("name") if request.get("method") == "tools/call" else None
    return name if isinstance(name, str) else None


def arguments_of(request: Wire) -> str:
    """The call's arguments as text that is equal for equal arguments."""
    return json.dumps(params_of(request).get("arguments"), sort_keys=True)


def name_of(result: Wire) -> str | None:
    """The name that a server gives itself in a result, if it does."""
    identity = result.get("serverInfo") or _meta(result).get(_SERVER_KEY)
    name = identity.get("name") if isinstance(identity, dict) else None
    return name if isinstance(name, str) else None


def server_of(request: Wire, result: Wire) -> Wire:
    """Identity, protocol version and capabilities, as `initialize` or (from revision 2026-07-28) `server/discover` gives them."""
    identity = result.get("serverInfo") or _meta(result).get(_SERVER_KEY)
    version = result.get("protocolVersion") or _meta(params_of(request)).get(_VERSION_KEY)
    kept = {name: result[name] for name in ("capabilities", "instructions", "supportedVersions") if name in result}
    return {"serverInfo": identity, "protocolVersion": version, **kept}


def error_answer(request: Wire, code: int, message: str, data: JsonValue = None) -> Wire:
    """A JSON-RPC error in answer to `request`."""
    error: Wire = {"code": code, "message": message}
    return {"jsonrpc": "2.0", "id": request["id"], "error": error if data is None else error | {"data": data}}


def refusal(request: Wire, fault: Fault) -> Wire:
    """The error that a fault's settings describe: a JSON-RPC error, or for a call a tool result with isError."""
    message = text(fault, "message")
    if not flag(fault, "as_result") or request["method"] != "tools/call":
        return error_answer(request, int(number(fault, "code")), message)
    result: Wire = {"content": [{"type": "text", "text": message}], "isError": True}
    if _VERSION_KEY in _meta(params_of(request)):  # a revision without handshake: 2026-07-28 and later
        result["resultType"] = "complete"
    return {"jsonrpc": "2.0", "id": request["id"], "result": result}


def exact(value: JsonValue) -> JsonValue:
    """The value in a form that has a digest: numbers that RFC 8785 cannot print (beyond 2^53, infinite) become decimal strings,
    and half a surrogate pair becomes `?`.
    """
    if isinstance(value, dict):
        return {_printable(name): exact(item) for name, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    if isinstance(value, str):
        return _printable(value)
    if isinstance(value, int | float) and not -_MAX_EXACT_INTEGER < value < _MAX_EXACT_INTEGER:
        return str(value)
    return value


def _printable(value: str) -> str:
    return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")


def _meta(holder: Wire) -> Wire:
    meta = holder.get("_meta")
    return cast("Wire", meta) if isinstance(meta, dict) else {}

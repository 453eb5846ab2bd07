"""The wire formats of model endpoints: which one a request speaks, what it asks for as sent, which tools an answer calls.

Instructions, tool definitions and parameters are kept as sent, because they are what a release is made of. What users, tools and
the model say is kept as digests. Bytes are only ever read here; nothing is written back.
"""

import json
import re
from typing import Literal

from pydantic import JsonValue

from auditgap.records import canonical_json, digest_of

__all__ = [
    "Document",
    "Wire",
    "answered",
    "calls",
    "canonical_request",
    "dicts",
    "events",
    "finish",
    "payload",
    "sent",
    "table",
    "wire_of",
]

Wire = Literal["openai-chat", "openai-completions", "openai-responses", "anthropic-messages"]
Document = dict[str, JsonValue]

_PATHS: tuple[tuple[str, Wire], ...] = (
    ("/chat/completions", "openai-chat"),
    ("/completions", "openai-completions"),
    ("/responses", "openai-responses"),
    ("/v1/messages", "anthropic-messages"),
)
_TALK = ("messages", "input")
_ONE_TEXT = ("prompt", "suffix", "prediction")
_TOLD_BY = ("system", "developer")
_SETTINGS = frozenset(
    {
        "betas",
        "context_management",
        "function_call",
        "include",
        "logit_bias",
        "modalities",
        "output_config",
        "reasoning",
        "reasoning_effort",
        "response_format",
        "service_tier",
        "stop",
        "stop_sequences",
        "stream_options",
        "text",
        "thinking",
        "tool_choice",
        "truncation",
        "verbosity",
    }
)
"""Settings whose value is not a plain number or boolean; any other text or structure is reduced to its digest."""
_SECRETS = frozenset({"authorization", "authorization_token", "headers"})
"""Fields of a remote tool's definition that carry credentials."""
_EVENT_END = re.compile(rb"\r\n\r\n|\n\n|\r\r")
_LARGEST_INTEGER_DIGITS = 15


def wire_of(method: str, path: str) -> Wire | None:
    """The format that a request speaks, by its path; None for everything that does not ask a model to write."""
    if method != "POST":
        return None
    return next((wire for suffix, wire in _PATHS if path.rstrip("/").endswith(suffix)), None)


def canonical_request(body: bytes) -> Document | None:
    """The object in `body` in a form that can be digested, or None if there is none that can be read.

    Numbers that have no canonical form become text, and lone surrogates become `?`: this is for the record, never to be sent on.
    """
    try:
        value = json.loads(body, parse_int=_integer, parse_float=_float, parse_constant=_refuse)
        value = json.loads(json.dumps(value, ensure_ascii=False).encode("utf-8", "replace"))
        canonical_json(value)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def answered(body: bytes) -> Document | None:
    """The object in `body` as it is, or None if there is none that can be read."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def sent(wire: Wire, path: str, request: Document) -> Document:
    """What a request asks for, under the names of its own format: instructions, tools and parameters as sent.

    What people said and who they are is there as digests; credentials of remote tools are withheld.
    """
    body: Document = {}
    for name, value in request.items():
        if name in ("tools", "functions", "mcp_servers"):
            body[name] = [_without_secrets(item) for item in dicts(value)]
        elif name in ("system", "instructions"):
            body[name] = _instruction(value)
        elif name in _TALK:
            body[name] = [_message(item) for item in value] if isinstance(value, list) else _digest(value)
        elif name not in _ONE_TEXT:
            plain = name == "model" or name in _SETTINGS or value is None or isinstance(value, int | float)
            body[name] = value if plain else _digest(value)
    said: list[JsonValue] = [{"role": name, "content": _digest(request[name])} for name in _ONE_TEXT if name in request]
    if said:
        body["messages"] = said
    return {"wire": wire, "path": path, "body": body}


def calls(wire: Wire, document: Document) -> list[Document]:
    """The objects of an answer, or of one event of a stream, that name a tool the model calls; each has a `name`."""
    found: list[Document] = []
    if wire == "openai-chat":
        said = [table(choice.get("message") or choice.get("delta")) for choice in dicts(document.get("choices"))]
        found = [table(call.get("function")) for message in said for call in dicts(message.get("tool_calls"))]
        found += [table(message.get("function_call")) for message in said]
    elif wire == "anthropic-messages":
        blocks = [*dicts(document.get("content")), table(document.get("content_block"))]
        found = [block for block in blocks if str(block.get("type")).endswith("tool_use")]
    elif wire == "openai-responses":
        added = [table(document.get("item"))] if document.get("type") == "response.output_item.added" else []
        found = [item for item in dicts(document.get("output")) + added if str(item.get("type")).endswith("_call")]
    return [call for call in found if isinstance(call.get("name"), str) and call["name"]]


def finish(wire: Wire, document: Document) -> str | None:
    """Why the model stopped, where an answer or an event of a stream says so."""
    if wire == "anthropic-messages":
        reason = document.get("stop_reason") or table(document.get("delta")).get("stop_reason")
    elif wire == "openai-responses":
        reason = table(document.get("response")).get("status") or document.get("status")
    else:
        reason = next((choice["finish_reason"] for choice in dicts(document.get("choices")) if choice.get("finish_reason")), None)
    return reason if isinstance(reason, str) else None


def events(buffer: bytes) -> tuple[list[bytes], bytes]:
    """The complete server-sent events at the start of `buffer`, byte for byte with their empty line, and the rest."""
    complete, start = [], 0
    for end in _EVENT_END.finditer(buffer):
        complete.append(buffer[start : end.end()])
        start = end.end()
    return complete, buffer[start:]


def payload(event: bytes) -> Document | None:
    """The JSON object that an event carries; None for a comment, a ping without data and OpenAI's `[DONE]`."""
    lines = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    return answered(b"\n".join(lines)) if lines else None


def dicts(value: JsonValue) -> list[Document]:
    """The objects of a list; empty for anything that is not a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def table(value: JsonValue) -> Document:
    """The object itself, or an empty one."""
    return value if isinstance(value, dict) else {}


def _without_secrets(tool: Document) -> JsonValue:
    return {name: "withheld" if name in _SECRETS else value for name, value in tool.items()}


def _message(message: JsonValue) -> JsonValue:
    if not isinstance(message, dict):
        return _digest(message)
    role = message.get("role") or message.get("type")
    content = message.get("content")
    return {"role": role, "content": _instruction(content) if role in _TOLD_BY else _digest(message)}


def _instruction(content: JsonValue) -> JsonValue:
    """Text as it is, alone or in blocks; anything else in it as a digest."""
    if isinstance(content, list):
        return [part if isinstance(part, str) or isinstance(table(part).get("text"), str) else _digest(part) for part in content]
    return content if content is None or isinstance(content, str) else _digest(content)


def _digest(value: JsonValue) -> str:
    return digest_of(canonical_json(value))


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits.lstrip("-")) <= _LARGEST_INTEGER_DIGITS else digits


def _float(digits: str) -> float | str:
    return value if abs(value := float(digits)) != float("inf") else digits


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")

"""The normal form of a component: two texts that mean the same have the same one, and nothing else does.

1. Objects have no key order and numbers no spelling (RFC 8785 prints them); an integer beyond 2^53, which it cannot print, is
   kept as text under `$integer`.
2. In a JSON Schema, `required`, `enum` and a list of types are sets: they are sorted. Only where the keyword is meant: a property
   that is called `enum`, or a default value with such a key, is left alone. An empty `required` says nothing and is left out.
3. A prompt loses blanks at the ends of its lines and empty lines at its end. Other invisible characters count.
"""

import math

from pydantic import JsonValue

from auditgap.errors import DataError
from auditgap.records import canonical_json

__all__ = ["normal_json", "normal_schema", "normal_text", "normal_tool"]

MAX_DEPTH = 60  # of nested arrays and objects; real schemas stay under 20
_SAFE_INTEGER = 2**53 - 1
_SETS = ("required", "enum", "type")
_SUBSCHEMA = (
    "additionalItems",
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
)
_SUBSCHEMA_LISTS = ("allOf", "anyOf", "items", "oneOf", "prefixItems")
_SUBSCHEMA_MAPS = ("$defs", "definitions", "dependentSchemas", "patternProperties", "properties")


def normal_json(value: object, *, depth: int = 0) -> JsonValue:
    """Any JSON value.

    Raises:
        DataError: it nests too deep, holds a number that is not finite, or something that JSON has no word for.
    """
    if depth > MAX_DEPTH:
        raise DataError(f"expected at most {MAX_DEPTH} nested levels, got more; flatten it")
    if isinstance(value, dict):
        return {_printable(str(key)): normal_json(item, depth=depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [normal_json(item, depth=depth + 1) for item in value]
    if isinstance(value, str):
        return _printable(value)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if abs(value) <= _SAFE_INTEGER else {"$integer": str(value)}
    if isinstance(value, float) and math.isfinite(value):
        return normal_json(int(value)) if value.is_integer() else value
    raise DataError(f"expected a JSON value, got {value!r}")


def _printable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(f"expected text, got half a surrogate pair in {text!a:.80}") from None
    return text


def normal_text(text: str) -> str:
    """A prompt: line ends as in Unix, no blanks or tabs at the end of a line, no empty lines at the end."""
    return "\n".join(line.rstrip(" \t") for line in text.replace("\r\n", "\n").split("\n")).rstrip("\n")


def normal_schema(schema: object) -> JsonValue:
    """A JSON Schema; its set-like arrays are sorted.

    Raises:
        DataError: as `normal_json`.
    """
    return _schema(normal_json(schema))


def normal_tool(tool: object) -> JsonValue:
    """A tool definition of MCP; its input and output schemas are in normal form.

    Raises:
        DataError: as `normal_json`.
    """
    value = normal_json(tool)
    if not isinstance(value, dict):
        return value
    return {key: _schema(item) if key in ("inputSchema", "outputSchema") else item for key, item in value.items()}


def _schema(schema: JsonValue) -> JsonValue:
    if not isinstance(schema, dict):
        return schema
    return {key: _keyword(key, value) for key, value in schema.items() if (key, value) != ("required", [])}


def _keyword(key: str, value: JsonValue) -> JsonValue:
    match value:
        case list() if key in _SETS:
            return sorted(value, key=canonical_json)
        case list() if key in _SUBSCHEMA_LISTS:
            return [_schema(item) for item in value]
        case dict() if key in _SUBSCHEMA:
            return _schema(value)
        case dict() if key in _SUBSCHEMA_MAPS:
            return {name: _schema(item) for name, item in value.items()}
        case dict() if key == "dependentRequired":
            return {
                name: sorted(names, key=canonical_json) if isinstance(names, list) else names for name, names in value.items()
            }
    return value

"""Faults as pure functions on MCP's wire JSON: entries of a ListToolsResult, and a CallToolResult.

The input is never changed. A fault that finds nothing to act on returns an equal value: the caller reports a firing only when
the two differ.
"""

import copy
import json
from collections.abc import Callable

from pydantic import JsonValue

from auditgap.errors import UsageError
from auditgap.release.faults import Fault, FaultKind
from auditgap.release.injection.kinds import items, number, table, text

__all__ = ["LIST_KINDS", "RESULT_KINDS", "tamper_result", "tamper_tools"]

Wire = dict[str, JsonValue]

_LIMITS = [
    "enum",
    "const",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
]


def tamper_tools(tools: list[Wire], fault: Fault) -> list[Wire]:
    """The list as the fault shows it; entries that `fault.match.tool` does not name stay as they are.

    Raises:
        UsageError: the kind does not act on a list of tools.
        PlanError: a setting of the fault does not exist or has the wrong type.
    """
    act = _known(_ON_TOOL, fault)
    shown = [copy.deepcopy(tool) for tool in tools]  # one by one: tools may share parts, and only one of them changes
    for tool in shown:
        if fault.match.tool in (None, tool.get("name")):
            act(tool, fault)
    return shown


def tamper_result(result: Wire, fault: Fault) -> Wire:
    """The result as the fault shows it.

    Raises:
        UsageError: the kind does not act on a result.
        PlanError: a setting of the fault does not exist or has the wrong type.
    """
    act = _known(_ON_RESULT, fault)
    shown = copy.deepcopy(result)
    act(shown, fault)
    return shown


def _known(acts: dict[FaultKind, Callable[[Wire, Fault], None]], fault: Fault) -> Callable[[Wire, Fault], None]:
    if fault.kind not in acts:
        raise UsageError(f"fault '{fault.id}': expected one of {', '.join(acts)}; got {fault.kind}, which changes no content")
    return acts[fault.kind]


def _widen(tool: Wire, fault: Fault) -> None:
    schema, only = _schema(tool), text(fault, "property")
    properties = _properties(tool)
    for name in (only,) if only else tuple(properties):
        _loosen(properties.get(name))
        _set_required(schema, [kept for kept in _required(schema) if kept != name])
    if not only:
        _set_required(schema, [])
        if "additionalProperties" in schema:
            schema["additionalProperties"] = True


def _loosen(schema: JsonValue) -> None:
    if not isinstance(schema, dict):
        return
    for limit in _LIMITS:
        schema.pop(limit, None)
    if "additionalProperties" in schema:
        schema["additionalProperties"] = True


def _narrow(tool: Wire, fault: Fault) -> None:
    schema, name = _schema(tool), text(fault, "property")
    properties = schema.setdefault("properties", {})
    if isinstance(properties, dict):
        properties.setdefault(name, {"type": "string"})
    _set_required(schema, [*(kept for kept in _required(schema) if kept != name), name])


def _rename(tool: Wire, fault: Fault) -> None:
    if text(fault, "of") == "tool":
        tool["name"] = text(fault, "to") or f"{tool.get('name')}_v2"
        return
    if (old := _chosen(tool, fault)) is None:
        return
    new = text(fault, "to") or f"{old}_v2"
    schema = _schema(tool)
    schema["properties"] = {new if name == old else name: value for name, value in _properties(tool).items()}
    _set_required(schema, [new if name == old else name for name in _required(schema)])


def _retype(tool: Wire, fault: Fault) -> None:
    if (name := _chosen(tool, fault)) is None:
        return
    before = _properties(tool)[name]
    had = before.get("type") if isinstance(before, dict) else None
    kept = {key: before[key] for key in ("title", "description") if key in before} if isinstance(before, dict) else {}
    _properties(tool)[name] = {"type": text(fault, "type") or ("integer" if had == "string" else "string"), **kept}


def _poison(tool: Wire, fault: Fault) -> None:
    name = text(fault, "property")
    entry = _properties(tool).get(name) if name else tool
    if isinstance(entry, dict):
        entry["description"] = f"{entry.get('description') or ''} {text(fault, 'text')}".strip()


def _inject(result: Wire, fault: Fault) -> None:
    instruction = text(fault, "text")
    for block in _blocks(result):
        if isinstance(block.get("text"), str):
            block["text"] = f"{block['text']}\n{instruction}"
            break
    else:
        result["content"] = [*_blocks(result), {"type": "text", "text": instruction}]
    if isinstance(structured := result.get("structuredContent"), dict):
        for name, value in structured.items():
            if isinstance(value, str):
                structured[name] = f"{value}\n{instruction}"
                break


def _violate(result: Wire, fault: Fault) -> None:
    if not isinstance(structured := result.get("structuredContent"), dict):
        result["content"] = "not a list of content blocks"
    elif text(fault, "how") == "drop":
        del result["structuredContent"]
    else:
        result["structuredContent"] = {
            name: {"unexpected": True} if isinstance(value, str | list) else ["unexpected"] for name, value in structured.items()
        }


def _truncate(result: Wire, fault: Fault) -> None:
    share = min(max(number(fault, "keep_share"), 0.0), 1.0)
    for block in _blocks(result):
        if isinstance(value := block.get("text"), str):
            block["text"] = value[: int(len(value) * share)]
    if "structuredContent" in result:
        result["structuredContent"] = _cut(result["structuredContent"], share)


def _cut(value: JsonValue, share: float) -> JsonValue:
    if isinstance(value, str):
        return value[: int(len(value) * share)]
    if isinstance(value, list):
        return [_cut(item, share) for item in value[: int(len(value) * share)]]
    return {name: _cut(item, share) for name, item in value.items()} if isinstance(value, dict) else value


def _oversize(result: Wire, fault: Fault) -> None:
    result["content"] = [*_blocks(result), {"type": "text", "text": "x" * int(number(fault, "n_chars"))}]


def _swap_tenant(result: Wire, fault: Fault) -> None:
    fields, tenant, swaps = set(map(str, items(fault, "fields"))), text(fault, "tenant"), table(fault, "replace")

    def swapped(value: JsonValue) -> JsonValue:
        if isinstance(value, dict):
            return {name: tenant if name in fields else swapped(item) for name, item in value.items()}
        if isinstance(value, list):
            return [swapped(item) for item in value]
        if isinstance(value, str):
            for old, new in swaps.items():
                value = value.replace(old, str(new))
        return value

    for block in _blocks(result):
        if isinstance(shown := block.get("text"), str):
            parsed = _json_object(shown)
            block["text"] = swapped(shown) if parsed is None or swapped(parsed) == parsed else json.dumps(swapped(parsed))
    if "structuredContent" in result:
        result["structuredContent"] = swapped(result["structuredContent"])


def _json_object(shown: str) -> JsonValue:
    try:
        parsed = json.loads(shown)
    except ValueError:
        return None
    return parsed if isinstance(parsed, dict | list) else None


def _schema(tool: Wire) -> Wire:
    schema = tool.setdefault("inputSchema", {"type": "object"})
    return schema if isinstance(schema, dict) else {}


def _properties(tool: Wire) -> Wire:
    properties = _schema(tool).get("properties")
    return properties if isinstance(properties, dict) else {}


def _required(schema: Wire) -> list[JsonValue]:
    required = schema.get("required")
    return required if isinstance(required, list) else []


def _set_required(schema: Wire, names: list[JsonValue]) -> None:
    if names:
        schema["required"] = names
    else:
        schema.pop("required", None)


def _chosen(tool: Wire, fault: Fault) -> str | None:
    """The property that a fault names, else the first required one, else the first."""
    properties = _properties(tool)
    wanted = [text(fault, "property")] if text(fault, "property") else [*map(str, _required(_schema(tool))), *properties]
    return next((name for name in wanted if name in properties), None)


def _blocks(result: Wire) -> list[Wire]:
    content = result.get("content")
    return [block for block in content if isinstance(block, dict)] if isinstance(content, list) else []


_ON_TOOL: dict[FaultKind, Callable[[Wire, Fault], None]] = {
    "schema_widen": _widen,
    "schema_narrow": _narrow,
    "schema_rename": _rename,
    "schema_retype": _retype,
    "description_poison": _poison,
}
_ON_RESULT: dict[FaultKind, Callable[[Wire, Fault], None]] = {
    "result_injection": _inject,
    "result_schema_violation": _violate,
    "result_truncated": _truncate,
    "result_oversized": _oversize,
    "wrong_tenant_result": _swap_tenant,
}

LIST_KINDS: frozenset[FaultKind] = frozenset(_ON_TOOL)
"""Kinds that `tamper_tools` knows."""
RESULT_KINDS: frozenset[FaultKind] = frozenset(_ON_RESULT)
"""Kinds that `tamper_result` knows."""

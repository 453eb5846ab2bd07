"""A tool server as components: who it says it is, which protocol it speaks, and each tool that it offers."""

from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from auditgap.errors import DataError
from auditgap.records.manifest import Component
from auditgap.release.capture.component import component
from auditgap.release.capture.files import Read

__all__ = ["MAX_TOOLS", "identity_of", "server_components"]

MAX_TOOLS = 10_000  # of one server; more is a flood

_IDENTITY = {
    "serverInfo": "serverInfo",
    "server_info": "serverInfo",
    "instructions": "instructions",
    "capabilities": "capabilities",
}


def server_components(
    name: str,
    answer: JsonValue,
    tools: Sequence[Read],
    *,
    cache: Mapping[str, JsonValue],
    protocol: str | None,
    source: str,
) -> list[Component]:
    """The components of one server; `answer` is its identity, or what it said to `initialize`.

    Raises:
        DataError: the identity or a tool has no name, a tool is given twice, or there are too many.
    """
    content = identity_of(answer, where=f"server {name}") | {key: value for key, value in cache.items() if value is not None}
    found = [component("server", name, content, source=source)]
    if protocol is not None:
        found.append(component("protocol", name, protocol, source=source))
    return found + tool_components(name, tools)


def tool_components(server: str, tools: Sequence[Read]) -> list[Component]:
    """One component per tool.

    Raises:
        DataError: a tool has no name or is given twice, or there are too many.
    """
    if len(tools) > MAX_TOOLS:
        raise DataError(f"server {server}: expected at most {MAX_TOOLS} tools, got {len(tools)}")
    found: dict[str, Component] = {}
    for read in tools:
        name = read.value.get("name") if isinstance(read.value, dict) else None
        if not isinstance(name, str) or not name:
            raise DataError(f"server {server}, {read.source}: expected a tool definition with a name, got {read.value!r:.80}")
        if name in found:
            raise DataError(f"server {server}: tool '{name}' is given twice; a call could reach either")
        found[name] = component("tool", f"{server}/{name}", read.value, raw=read.raw, source=read.source)
    return list(found.values())


def identity_of(answer: JsonValue, *, where: str) -> dict[str, JsonValue]:
    """What a server says about itself: name, version, instructions, capabilities; spelled as MCP does on the wire.

    Raises:
        DataError: there is no name.
    """
    if not isinstance(answer, dict):
        raise DataError(f"{where}: expected its name and version, got {answer!r:.80}")
    known = {_IDENTITY[key]: value for key, value in answer.items() if key in _IDENTITY and value is not None}
    info = known.pop("serverInfo", None) if "serverInfo" in known else answer
    if not isinstance(info, dict) or not isinstance(info.get("name"), str):
        raise DataError(f"{where}: expected its name and version, got {answer!r:.80}")
    return {**info, **known}

"""The observed manifest: what the proxies saw go past.

1. A `server` observation is a server's answer to `initialize` or `server/discover`, a `tools` observation that to `tools/list`.
2. A `request` is the body sent to a model: chat completions or responses of OpenAI, messages of Anthropic. Of it the model's
   name, the system prompt, the tools offered and every other parameter are kept; the conversation is not.
3. A thing that was seen in two versions is two components, the second as `id#2`: a declared manifest knows only one of them.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import JsonValue

from auditgap.errors import DataError, PlanError
from auditgap.records.manifest import Component, ComponentKind, ReleaseManifest
from auditgap.release.capture.component import component, manifest, raw_of
from auditgap.release.capture.files import Read
from auditgap.release.capture.normal import normal_text
from auditgap.release.capture.prompts import is_alias
from auditgap.release.capture.servers import identity_of, tool_components
from auditgap.release.observation import Observation, read_observations

__all__ = ["OBSERVABLE", "capture_observed", "capture_observed_file"]

OBSERVABLE: frozenset[ComponentKind] = frozenset(
    ("model", "system_prompt", "sampling", "server", "protocol", "tool", "offered_tool")
)
"""The kinds that leave a trace on the wire."""

_CONVERSATION = ("messages", "input", "system", "instructions", "tools", "functions", "model")
_PER_REQUEST = (
    "stream",
    "stream_options",
    "metadata",
    "user",
    "store",
    "previous_response_id",
    "conversation",
    "safety_identifier",
)
_SYSTEM_ROLES = ("system", "developer")


def capture_observed(observations: Iterable[Observation], *, name: str) -> ReleaseManifest:
    """The manifest of what was seen.

    Raises:
        DataError: nothing was seen, or an observation is not what it says.
        PlanError: a model was asked for by a mutable alias, so that nobody can say which one answered.
    """
    seen: list[Component] = []
    caches: dict[str, dict[str, JsonValue]] = {}
    observations = list(observations)
    for observation in observations:
        if observation.what == "tools" and isinstance(observation.content, dict):
            cache = {key: observation.content[key] for key in ("ttlMs", "cacheScope") if observation.content.get(key) is not None}
            caches.setdefault(observation.server or "", {}).update(cache)
    for observation in observations:
        server = observation.server or "main"
        match observation.what:
            case "server":
                seen += _server(server, observation.content, caches.get(observation.server or "", {}))
            case "tools":
                seen += tool_components(server, _tools(server, observation.content))
            case "request":
                seen += _request(observation.content)
    if not seen:
        raise DataError("expected observations of servers, tools or requests, got none; run the canary through the proxies first")
    return manifest(name, "observed", _versions(seen))


def capture_observed_file(path: str | Path, *, name: str | None = None) -> ReleaseManifest:
    """The manifest of what the proxies wrote into a file; its name is the file's unless one is given.

    Raises:
        PlanError, DataError: as `capture_observed`, or the file cannot be read.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: expected a file of observations, got nothing; run the canary through the proxies first")
    try:
        observations = read_observations(path)
    except PlanError as error:
        raise DataError(f"{path}: expected one observation per line as JSON, got: {error}") from None
    return capture_observed(observations, name=name or path.stem)


def _versions(seen: Iterable[Component]) -> list[Component]:
    """Each distinct component once; further versions of one thing are numbered in the order in which they were seen."""
    distinct = {(c.kind, c.id, c.normal_digest): c for c in reversed(list(seen))}
    counts: Counter[tuple[str, str]] = Counter()
    found: list[Component] = []
    for c in reversed(distinct.values()):
        counts[c.kind, c.id] += 1
        number = counts[c.kind, c.id]
        found.append(c if number == 1 else c.model_copy(update={"id": f"{c.id}#{number}"}))
    return found


def _server(name: str, content: JsonValue, cache: dict[str, JsonValue]) -> Iterator[Component]:
    named = not isinstance(content, dict) or content.get("serverInfo", content) is not None
    identity = identity_of(content, where=f"server {name}") if named else {"name": None}  # later revisions need not say
    yield component("server", name, identity | cache, source="observed")
    if isinstance(content, dict):
        protocol = content.get("protocolVersion", content.get("protocol_version"))
        if isinstance(protocol, str):
            yield component("protocol", name, protocol, source="observed")


def _tools(server: str, content: JsonValue) -> list[Read]:
    listed = content.get("tools") if isinstance(content, dict) else content
    if not isinstance(listed, list):
        raise DataError(f"server {server}: expected an answer to tools/list, got {content!r:.80}")
    return [Read(tool, raw_of(tool), "observed") for tool in listed]


def _request(body: JsonValue) -> Iterator[Component]:
    """The parts of one request that belong to the release."""
    if not isinstance(body, dict):
        raise DataError(f"request: expected the body as a JSON object, got {body!r:.80}")
    if isinstance(body.get("body"), dict):
        yield from _request(body["body"])
        return
    model = body.get("model")
    if isinstance(model, str):
        if is_alias(model):
            raise PlanError(f"a request asked for the model '{model}', a mutable alias; send the dated name, then capture again")
        yield component("model", "main", {"id": model}, source="observed")
    if (system := _system(body)) is not None:
        yield component("system_prompt", "main", {"rendered": normal_text(system)}, raw=raw_of(system), source="observed")
    offers = [tool for key in ("tools", "functions") if isinstance(tools := body.get(key), list) for tool in tools]
    for tool in offers:
        offered = offered_tool(tool)
        yield component(
            "offered_tool", str(offered.get("name") or offered.get("type")), offered, raw=raw_of(tool), source="observed"
        )
    parameters = {key: value for key, value in body.items() if key not in _CONVERSATION + _PER_REQUEST}
    if parameters:
        yield component("sampling", "main", parameters, source="observed")


def offered_tool(tool: JsonValue) -> dict[str, JsonValue]:
    """A tool as a model's provider is sent it, in the words of MCP; what is no function is kept as it is."""
    if not isinstance(tool, dict):
        raise DataError(f"request: expected tools as JSON objects, got {tool!r:.80}")
    function = tool.get("function")
    inner = function if isinstance(function, dict) else tool
    words = {"parameters": "inputSchema", "input_schema": "inputSchema"}
    return {words.get(key, key): value for key, value in inner.items() if not (key == "type" and value in ("function", "custom"))}


def _system(body: dict[str, JsonValue]) -> str | None:
    """The system prompt, wherever the provider's format has it."""
    for key in ("system", "instructions"):
        if body.get(key) is not None:
            return _text(body[key])
    messages = body.get("messages", body.get("input"))
    found = [
        _text(message.get("content"))
        for message in (messages if isinstance(messages, list) else [])
        if isinstance(message, dict) and message.get("role") in _SYSTEM_ROLES
    ]
    return "\n\n".join(found) if found else None


def _text(content: JsonValue) -> str:
    """Text, or the texts of a list of blocks."""
    if isinstance(content, str):
        return content
    blocks = content if isinstance(content, list) else []
    return "\n\n".join(str(block.get("text", "")) for block in blocks if isinstance(block, dict))

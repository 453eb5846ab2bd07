"""The declared manifest: what configuration says a release is.

1. Each section of `release.yaml` becomes one component, or one per item, in a fixed order.
2. Files are read and digested as they are; aliases are resolved or refused; prompts and templates are rendered.
3. What looks like a secret is refused; environment variables enter as keyed hashes.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from pydantic import JsonValue

from auditgap.errors import DataError
from auditgap.records.manifest import Component, ComponentKind, ReleaseManifest
from auditgap.release.capture.component import component, manifest
from auditgap.release.capture.declaration import Context, Declaration, Named, Prompt, ServerDeclared, load_declaration
from auditgap.release.capture.files import Read, file_digests, read_value
from auditgap.release.capture.lockfile import lockfile
from auditgap.release.capture.normal import normal_text
from auditgap.release.capture.prompts import chat_template_text, pinned_model, prompt_source, render_chat, render_prompt
from auditgap.release.capture.secrets import environment_key, keyed
from auditgap.release.capture.servers import server_components

__all__ = ["capture_declared"]

_VALUES: tuple[ComponentKind, ...] = (
    "quantisation",
    "few_shots",
    "sampling",
    "retrieval",
    "limits",
    "approval",
    "logging",
    "redaction",
    "rollback",
    "engine",
    "feature_flags",
)
_CHAINS: tuple[ComponentKind, ...] = ("middleware", "post_processing")


def capture_declared(path: str | Path, *, environ: Mapping[str, str] = os.environ) -> ReleaseManifest:
    """The manifest of the release that `path` declares.

    Raises:
        PlanError: the release file is malformed, or names an alias that nothing resolves.
        DataError: a file that it names is missing or malformed, or configuration holds a secret in the clear.
    """
    declared, folder, source = load_declaration(Path(path)), Path(path).parent, Path(path).name
    found = [*_files(declared, folder), *_prompts(declared, folder, source), *_values(declared, folder, source)]
    for name, server in declared.servers.items():
        found += _server(name, server, folder, source)
    found += [*_lists(declared, folder, source), *_monitors(declared, folder, source)]
    if declared.authorisation:
        found += _authorisation(declared.authorisation, folder, source)
    if declared.environment:
        key = environment_key(declared.environment, folder, environ)
        found += [
            component("environment", name, keyed(name, environ.get(name), key), source="environment")
            for name in declared.environment.names
        ]
    if not found:
        raise DataError(f"{path}: declares no component; name at least the model or its weights")
    return manifest(declared.name, "declared", found)


def _files(declared: Declaration, folder: Path) -> Iterator[Component]:
    """What is identified by the digests of its files."""
    named: tuple[tuple[ComponentKind, tuple[str, ...]], ...] = (
        ("weights", (declared.weights,) if declared.weights else ()),
        ("adapter", (declared.adapter,) if declared.adapter else ()),
        ("tokenizer", declared.tokenizer),
    )
    for kind, paths in named:
        if paths:
            yield component(kind, "main", _merged(kind, [_digests(folder / path) for path in paths]), source=", ".join(paths))
    if declared.lockfile:
        read = lockfile(folder / declared.lockfile)
        yield component("lockfile", "main", read.value, raw=read.raw, source=declared.lockfile)


def _prompts(declared: Declaration, folder: Path, source: str) -> Iterator[Component]:
    if declared.model:
        yield component("model", "main", pinned_model(declared.model), source=source)
    if declared.chat_template:
        template = chat_template_text(folder / declared.chat_template)
        text = str(template.value)
        yield component(
            "chat_template", "main", {"canary": render_chat(text), "text": text}, raw=template.raw, source=template.source
        )
    if declared.system_prompt:
        yield _system_prompt(declared.system_prompt, folder)


def _system_prompt(prompt: Prompt, folder: Path) -> Component:
    template, entry = prompt_source(prompt, folder)
    text = str(template.value)
    rendered = normal_text(render_prompt(text, prompt.variables))
    content: dict[str, JsonValue] = {**entry, "rendered": rendered, "template": normal_text(text), "variables": prompt.variables}
    return component("system_prompt", "main", content, raw=template.raw, source=template.source, keep_content=prompt.keep_text)


def _values(declared: Declaration, folder: Path, source: str) -> Iterator[Component]:
    """Sections that are one value."""
    for kind in _VALUES:
        if (value := getattr(declared, kind)) is not None:
            yield _configured(kind, "main", value, folder, source)


def _lists(declared: Declaration, folder: Path, source: str) -> Iterator[Component]:
    """Sections that are a list of named things; chains keep their order."""
    sections: tuple[tuple[ComponentKind, tuple[Named, ...]], ...] = (
        ("middleware", declared.middleware),
        ("validator", declared.validators),
        ("post_processing", declared.post_processing),
    )
    for kind, items in sections:
        for place, item in enumerate(items):
            order = place if kind in _CHAINS else None
            yield _configured(kind, item.id, {"config": item.config}, folder, source, order=order)


def _monitors(declared: Declaration, folder: Path, source: str) -> Iterator[Component]:
    for monitor in declared.monitors:
        content: dict[str, JsonValue] = {
            "alarm_when": monitor.alarm_when,
            "calibration": _digests(folder / monitor.calibration),
            "layer": monitor.layer,
            "position": monitor.position,
            "probe": _digests(folder / monitor.probe),
            "threshold": monitor.threshold,
        }
        yield component("monitor", monitor.id, content, source=source)


def _authorisation(context: Context, folder: Path, source: str) -> Iterator[Component]:
    yield _configured("authorisation", "main", context.policy, folder, source)
    yield _configured("context_schema", "main", context.context_schema, folder, source)


def _server(name: str, server: ServerDeclared, folder: Path, source: str) -> list[Component]:
    tools, place = _tools(folder / server.tools), f"{source}, {server.tools}"
    identity = _resolve(server.identity, folder)
    cache: dict[str, JsonValue] = {"ttlMs": server.ttl_ms, "cacheScope": server.cache_scope}
    return server_components(name, identity, tools, cache=cache, protocol=server.protocol, source=place)


def _tools(path: Path) -> list[Read]:
    """Tool definitions: a folder of them, a list, or an answer to `tools/list`."""
    if path.is_dir():
        found = [read_value(file) for file in sorted(path.glob("*.json"))]
    else:
        whole = read_value(path)
        value = whole.value
        listed = value.get("tools") if isinstance(value, dict) and "tools" in value else value
        items = listed if isinstance(listed, list) else [listed]
        found = [Read(item, whole.raw, whole.source) for item in items]
    if not found:
        raise DataError(f"{path}: expected tool definitions, got none; save the server's answer to tools/list there")
    return found


def _configured(
    kind: ComponentKind, name: str, value: JsonValue, folder: Path, source: str, *, order: int | None = None
) -> Component:
    """A component from a value of the release file, its files read."""
    return component(kind, name, _resolve(value, folder), source=source, order=order)


def _resolve(value: JsonValue, folder: Path) -> JsonValue:
    """A value with `{$file: PATH}` replaced by the file's content and `{$files: PATH}` by the digests of what is there."""
    if isinstance(value, list):
        return [_resolve(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$file": str(path)} if len(value) == 1:
            return json.loads(json.dumps(read_value(folder / path).value, default=str))
        case {"$files": str(path)} if len(value) == 1:
            return _digests(folder / path)
    return {key: _resolve(item, folder) for key, item in value.items()}


def _digests(path: Path) -> dict[str, JsonValue]:
    """Files by relative path, in the OpenSSF model-signing form."""
    return {digest.path: {"content": digest.content, "size": digest.size} for digest in file_digests(path)}


def _merged(kind: ComponentKind, parts: list[dict[str, JsonValue]]) -> dict[str, JsonValue]:
    merged = {name: digest for part in parts for name, digest in part.items()}
    if len(merged) != sum(map(len, parts)):
        raise DataError(f"{kind}: two files of one name; name the folder that holds them")
    return merged

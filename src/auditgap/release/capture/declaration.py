"""What a user writes about a release: `release.yaml`.

A value is written in place, or as `{$file: PATH}` (its parsed content) or `{$files: PATH}` (digests of a file or folder). Paths
start from the folder of the release file. A section that is left out is a component that the release does not have.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, JsonValue

from auditgap.governance.document import parse
from auditgap.records import Number, Record

__all__ = [
    "Context",
    "Declaration",
    "Environment",
    "Model",
    "MonitorDeclared",
    "Named",
    "Prompt",
    "ServerDeclared",
    "load_declaration",
]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class Model(Record):
    """A model that is called by name."""

    id: str = Field(min_length=1)
    resolves_to: str | None = Field(default=None, min_length=1)
    """The dated name or commit behind an alias, looked up when the release was captured."""


class Prompt(Record):
    """A system prompt: a file, or an entry of a prompt registry that is exported to a file."""

    file: str | None = None
    registry: str | None = None
    """YAML: `aliases: {production: v12}`, `versions: {v12: system-v12.txt}`."""
    version: str | None = None
    """With `registry`: a version, or an alias that the registry resolves."""
    variables: dict[str, JsonValue] = Field(default_factory=dict)
    """What the template is rendered with."""
    keep_text: bool = True
    """False keeps digests only: then every change of the prompt is unknown."""


class Named(Record):
    """One of several: a link of a chain, a validator, a filter."""

    id: Name
    config: JsonValue = None
    note: str = ""
    """For readers; no part of the release."""


class Context(Record):
    """Who may do what, and on what knowledge."""

    policy: JsonValue
    context_schema: JsonValue
    """JSON Schema of the object that each decision is given."""


class MonitorDeclared(Record):
    """A calibrated probe on a running model."""

    id: Name
    probe: str
    """File with its weights."""
    layer: int = Field(ge=0)
    position: str
    """Position policy, e.g. `last`, `mean`, `rolling-max`."""
    threshold: Number
    alarm_when: Literal["at-least", "at-most"]
    calibration: str
    """File of the calibration that set the threshold."""
    note: str = ""


class ServerDeclared(Record):
    """A tool server."""

    identity: JsonValue
    """`{name, version}`, or the server's answer to `initialize` as it was saved."""
    protocol: str
    """Version of MCP, e.g. `2026-07-28`."""
    tools: str
    """A folder with one JSON file per tool, or one file with a list of tools or an answer to `tools/list`."""
    ttl_ms: int | None = Field(default=None, ge=0)
    cache_scope: str | None = None


class Environment(Record):
    """Environment variables: their names, and their values under a key."""

    names: tuple[str, ...] = Field(min_length=1)
    key_file: str | None = None
    """File with the key, at least 16 bytes."""
    key_variable: str | None = None
    """Environment variable that holds it."""


class Declaration(Record):
    """A release, as its owner declares it."""

    format: Literal["auditgap.dev/release/v1"]
    name: str = Field(min_length=1)
    notes: str = ""
    """For readers; no part of the release."""
    model: Model | None = None
    weights: str | None = None
    """Folder of the checkpoint: every file counts."""
    adapter: str | None = None
    quantisation: JsonValue = None
    tokenizer: tuple[str, ...] = ()
    chat_template: str | None = None
    """A Jinja file, or a tokenizer_config.json that holds one."""
    system_prompt: Prompt | None = None
    few_shots: JsonValue = None
    sampling: JsonValue = None
    servers: dict[Name, ServerDeclared] = Field(default_factory=dict)
    retrieval: JsonValue = None
    limits: JsonValue = None
    """Retries, timeouts and rates."""
    middleware: tuple[Named, ...] = ()
    """In the order in which a call passes them."""
    validators: tuple[Named, ...] = ()
    authorisation: Context | None = None
    approval: JsonValue = None
    monitors: tuple[MonitorDeclared, ...] = ()
    post_processing: tuple[Named, ...] = ()
    """In order."""
    logging: JsonValue = None
    redaction: JsonValue = None
    rollback: JsonValue = None
    engine: JsonValue = None
    """Flags of the serving engine."""
    lockfile: str | None = None
    feature_flags: JsonValue = None
    environment: Environment | None = None


def load_declaration(path: Path) -> Declaration:
    """Read a release file.

    Raises:
        PlanError: it cannot be read, or a field is unknown, missing or of the wrong kind.
    """
    return parse(path, Declaration)

"""What a release is made of, by digest.

A component's content is kept in its normal form, in which everything that has no meaning (key order, white space, the order of
set-like arrays) is gone. Its digest is that of the normal form, the raw digest that of the bytes as they were read. A release is
the same release exactly if its fingerprint is the same.
"""

from typing import Literal, Self

from pydantic import Field, JsonValue, model_validator

from auditgap.records.base import Digest, Record, UtcTime, canonical_json, digest_of

__all__ = ["RELEVANCE", "Capture", "Component", "ComponentKind", "ReleaseManifest", "Relevance"]

Capture = Literal["declared", "observed", "attested"]
"""`declared`: read from configuration; `observed`: seen by the proxies; `attested`: declared by another party."""

ComponentKind = Literal[
    "model",
    "weights",
    "adapter",
    "quantisation",
    "tokenizer",
    "chat_template",
    "system_prompt",
    "few_shots",
    "sampling",
    "server",
    "tool",
    "offered_tool",
    "protocol",
    "retrieval",
    "limits",
    "middleware",
    "validator",
    "authorisation",
    "context_schema",
    "approval",
    "monitor",
    "post_processing",
    "logging",
    "redaction",
    "rollback",
    "engine",
    "lockfile",
    "feature_flags",
    "environment",
]

Relevance = Literal["behaviour", "control", "ground"]
"""`behaviour`: steers what the model does; `control`: holds it back; `ground`: what both run on."""

RELEVANCE: dict[ComponentKind, Relevance] = {
    **dict.fromkeys(("model", "weights", "adapter", "quantisation", "tokenizer", "chat_template"), "behaviour"),
    **dict.fromkeys(("system_prompt", "few_shots", "sampling", "server", "tool", "offered_tool", "retrieval"), "behaviour"),
    **dict.fromkeys(("middleware", "validator", "authorisation", "context_schema", "approval", "monitor"), "control"),
    **dict.fromkeys(("post_processing", "logging", "redaction", "rollback"), "control"),
    **dict.fromkeys(("protocol", "limits", "engine", "lockfile", "feature_flags", "environment"), "ground"),
}
"""What a change of each kind can touch. Fixed: a release cannot declare a control to be of no relevance."""


class Component(Record):
    """One part of a release."""

    kind: ComponentKind
    id: str = Field(min_length=1)
    """Unique within its kind; a tool is `server/name`."""
    order: int | None = Field(default=None, ge=0, lt=2**53)
    """Place in its chain; None where order has no meaning."""
    normal_digest: Digest
    """Of the content in normal form: what identity rests on."""
    raw_digest: Digest
    """Of the bytes as they were read."""
    content: JsonValue = None
    """In normal form; None where only the digest may be kept."""
    source: str
    """Where it was read, for people: a file name, a registry entry with its version, a proxy."""
    safety_relevance: Relevance

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.safety_relevance != (due := RELEVANCE[self.kind]):
            raise ValueError(f"a {self.kind} has safety_relevance '{due}', got '{self.safety_relevance}'")
        if self.content is not None and digest_of(canonical_json(self.content)) != self.normal_digest:
            raise ValueError(
                f"{self.kind} {self.id}: the content does not have the digest {self.normal_digest}; capture the release again"
            )
        return self


class ReleaseManifest(Record):
    """Everything that decides how a release behaves and what holds it back."""

    schema_version: Literal["auditgap.dev/release-manifest/v1"] = "auditgap.dev/release-manifest/v1"
    name: str = Field(min_length=1)
    """For people, not for identity."""
    captured: Capture
    captured_at: UtcTime
    components: tuple[Component, ...] = Field(min_length=1)
    """By kind, order and id."""

    @model_validator(mode="after")
    def _ids_are_unique(self) -> Self:
        names = [(c.kind, c.id) for c in self.components]
        if twice := sorted({f"{kind} {id_}" for kind, id_ in names if names.count((kind, id_)) > 1}):
            raise ValueError(f"given twice: {', '.join(twice)}")
        return self

    def fingerprint(self) -> Digest:
        """Identity of the release by content: its name, formatting, and when or how it was captured do not matter."""
        parts = sorted([c.kind, c.id, -1 if c.order is None else c.order, c.normal_digest] for c in self.components)
        return digest_of(canonical_json(parts))

    def of(self, kind: ComponentKind) -> tuple[Component, ...]:
        """The components of one kind, in their order."""
        return tuple(
            sorted((c for c in self.components if c.kind == kind), key=lambda c: (-1 if c.order is None else c.order, c.id))
        )

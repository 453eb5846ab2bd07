"""The one way to make a component (normal form, both digests, where it came from) and a manifest."""

import json
from collections.abc import Iterable

from pydantic import ValidationError

from auditgap.errors import DataError
from auditgap.records import Digest, canonical_json, digest_of, now
from auditgap.records.manifest import RELEVANCE, Capture, Component, ComponentKind, ReleaseManifest
from auditgap.release.capture.normal import normal_json, normal_schema, normal_tool
from auditgap.release.capture.secrets import no_secrets

__all__ = ["component", "manifest", "raw_of"]


def component(
    kind: ComponentKind,
    name: str,
    value: object,
    *,
    source: str,
    raw: Digest | None = None,
    order: int | None = None,
    keep_content: bool = True,
) -> Component:
    """A component with its value in normal form; without `raw`, the raw digest is that of the value as it is spelled.

    Raises:
        DataError: the value is no JSON value, or holds a secret in the clear.
    """
    form = {"tool": normal_tool, "context_schema": normal_schema}.get(kind, normal_json)
    content = form(value)
    no_secrets(content, where=f"{kind} {name}")
    return Component(
        kind=kind,
        id=name,
        order=order,
        normal_digest=digest_of(canonical_json(content)),
        raw_digest=raw or raw_of(value),
        content=content if keep_content else None,
        source=source,
        safety_relevance=RELEVANCE[kind],
    )


def manifest(name: str, captured: Capture, components: Iterable[Component]) -> ReleaseManifest:
    """The manifest of these components, made now.

    Raises:
        DataError: there is no component, or two of one kind have one id.
    """
    found = tuple(sorted(components, key=lambda c: (c.kind, -1 if c.order is None else c.order, c.id)))
    try:
        return ReleaseManifest(name=name, captured=captured, captured_at=now(), components=found)
    except ValidationError as error:
        raise DataError(f"release {name}: {'; '.join(item['msg'] for item in error.errors(include_url=False))}") from None


def raw_of(value: object) -> Digest:
    """Digest of a value as it is spelled: key order and number format count."""
    return digest_of(json.dumps(value, ensure_ascii=True).encode())

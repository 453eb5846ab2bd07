"""Names, times and text in exported documents: all from the records, so that the same audit always gives the same bytes."""

import datetime as dt
import uuid
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple, TypeAlias

from auditgap.errors import UsageError
from auditgap.records import Decision, Digest, canonical_json
from auditgap.report import Audit
from auditgap.report.numbers import visible

__all__ = ["TOOL", "Json", "Decided", "decided", "hex_of", "iso", "latest", "line", "shown", "tool_version", "uri", "uuid_of"]

Json: TypeAlias = "Mapping[str, Json] | Sequence[Json] | str | int | float | bool | None"
"""Plain JSON that nobody writes to."""

TOOL = "auditgap"
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://auditgap.dev/export/v1")


class Decided(NamedTuple):
    """A decision on the subject of an audit, with its digest."""

    decision: Decision
    digest: Digest


def decided(audit: Audit) -> Decided:
    """The decision of an audit. Without one, most formats would show no failure, which readers take for a pass.

    Raises:
        UsageError: no gate has decided, or it decided on another subject.
    """
    if audit.decision is None or audit.decision_digest is None:
        raise UsageError(
            f"expected a decision on {audit.subject.name}, the store holds none: run 'auditgap gate' first, then export"
        )
    if audit.decision.subject != audit.subject.digest():
        raise UsageError(
            f"expected a decision on subject {audit.subject.digest()}, got one on {audit.decision.subject}: "
            "run 'auditgap gate' on this subject, then export"
        )
    return Decided(audit.decision, audit.decision_digest)


def latest(audit: Audit) -> dt.datetime:
    """The last moment that a record of this audit states; never the time of the export.

    Raises:
        UsageError: there is neither a decision nor evidence.
    """
    times = [evidence.finished_at for _, evidence in audit.evidence]
    times += [audit.decision.decided_at] if audit.decision else []
    if not times:
        raise UsageError(f"nothing to export on {audit.subject.name}: expected a decision or evidence; run 'auditgap audit'")
    return max(times)


def uuid_of(*parts: str) -> str:
    """A version 5 UUID of these parts: the same parts always give the same one."""
    return str(uuid.uuid5(_NAMESPACE, canonical_json(list(parts)).decode()))


def uri(kind: str, name: str) -> str:
    """`https://auditgap.dev/<kind>/<name>`: an identifier, not an address."""
    return f"https://auditgap.dev/{kind}/{name}"


def hex_of(digest: Digest) -> str:
    """The 64 hexadecimal digits of a digest."""
    return digest.removeprefix("sha256:")


def iso(moment: dt.datetime) -> str:
    """`2026-11-21T08:00:05Z`."""
    return f"{moment.astimezone(dt.UTC):%Y-%m-%dT%H:%M:%SZ}"


def line(text: str) -> str:
    """Text on one line with unseen characters spelled out; `-` if nothing is left."""
    return " ".join(visible(text).split()) or "-"


def shown(document: Mapping[str, Json]) -> dict[str, Json]:
    """A document in which every string has its unseen characters spelled out: some came from models or their makers."""
    return {key: _shown(value) for key, value in document.items()}


def _shown(value: Json) -> Json:
    match value:
        case str():
            return visible(value)
        case Mapping():
            return shown(value)
        case Sequence():
            return [_shown(item) for item in value]
    return value


def tool_version() -> str:
    """Version of auditgap that writes the document."""
    return version(TOOL)

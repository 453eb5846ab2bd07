"""Named technical ways in which a model or an agent can fail, and how each could be seen."""

from functools import cache
from pathlib import Path

from pydantic import Field

from auditgap.governance.document import by_id, parse
from auditgap.records import Date, Realm, Record, Verified

__all__ = ["Citation", "Detection", "FailureMode", "failure_modes"]

SHIPPED = Path(__file__).parent / "failure_modes.yaml"


class Citation(Record):
    """Where a statement comes from, and whether we read it there."""

    ref: str
    verified: Verified


class Detection(Record):
    """One way to look for a failure mode, and what it is blind to."""

    method: str
    instrument: str | None = None
    """Name of the instrument that carries the method out; None if auditgap has none yet."""
    cannot_see: str


class FailureMode(Record):
    """One technical way to fail."""

    id: str
    name: str
    definition: str
    realm: Realm
    detection: tuple[Detection, ...] = Field(min_length=1)
    mitigations: tuple[str, ...] = Field(min_length=1)
    citations: tuple[Citation, ...] = ()


class _File(Record):
    sources: tuple[Citation, ...] = Field(min_length=1)
    review_date: Date
    failure_modes: tuple[FailureMode, ...] = Field(min_length=1)


def failure_modes(path: Path = SHIPPED) -> dict[str, FailureMode]:
    """The taxonomy by id, in the order of the file.

    Raises:
        PlanError: the file is malformed, or an id is used twice.
    """
    return dict(_read(path))


@cache
def _read(path: Path) -> dict[str, FailureMode]:
    return by_id(path, parse(path, _File).failure_modes)

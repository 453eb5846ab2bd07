"""The four kinds of safety argument: what each says, and what must hold before it may be used."""

from functools import cache
from pathlib import Path

from pydantic import Field

from auditgap.governance.document import by_id, parse
from auditgap.governance.failure_mode import Citation
from auditgap.governance.safety_case.records import ArgumentName
from auditgap.records import Date, Record

__all__ = ["Argument", "arguments"]

SHIPPED = Path(__file__).parent / "arguments.yaml"


class Argument(Record):
    """One kind of argument."""

    id: ArgumentName
    says: str
    claims: tuple[str, ...] = Field(min_length=1)
    """At least one of these claims must be argued for at or below the strategy."""
    conditions: dict[str, str] = Field(min_length=1)
    """What must hold, by id; a strategy of this kind names the part of the case that answers each."""


class _File(Record):
    sources: tuple[Citation, ...] = Field(min_length=1)
    review_date: Date
    arguments: tuple[Argument, ...] = Field(min_length=1)


@cache
def arguments(path: Path = SHIPPED) -> dict[str, Argument]:
    """The kinds of argument by id.

    Raises:
        PlanError: the file is malformed, or an id is used twice.
    """
    return by_id(path, parse(path, _File).arguments)

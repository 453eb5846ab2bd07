"""The claims that frameworks presuppose, by id."""

from functools import cache
from pathlib import Path

from pydantic import Field

from auditgap.governance.document import by_id, parse
from auditgap.governance.failure_mode import Citation
from auditgap.records import Claim, Date, Record

__all__ = ["claims"]

SHIPPED = Path(__file__).parent / "claims.yaml"


class _File(Record):
    sources: tuple[Citation, ...] = Field(min_length=1)
    review_date: Date
    claims: tuple[Claim, ...] = Field(min_length=1)


def claims(path: Path = SHIPPED) -> dict[str, Claim]:
    """The claims by id, in the order of the file.

    Raises:
        PlanError: the file is malformed, or an id is used twice.
    """
    return dict(_read(path))


@cache
def _read(path: Path) -> dict[str, Claim]:
    return by_id(path, parse(path, _File).claims)

"""What would show that a claim holds: acceptance criteria by id, and whether anything that exists could meet them.

A criterion is examined on documents, or tested by named instruments. One that nothing can meet today says so in `open`: that is a
structural gap, declared. One that nothing can meet and that does not say so is refused.
"""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from auditgap.governance.document import by_id, parse
from auditgap.governance.failure_mode import Citation
from auditgap.governance.licensing import Licences, beyond_behaviour
from auditgap.records import Claim, Date, Record, Tier

__all__ = ["Acceptance", "acceptances", "could_meet", "unreachable"]

SHIPPED = Path(__file__).parent / "acceptance.yaml"


class Acceptance(Record):
    """One acceptance criterion of one claim."""

    id: str
    claim: str
    shows: str
    """What a reviewer accepts, in a sentence."""
    method: Literal["examine", "test"]
    """OSCAL's words: documents are examined, subjects are tested."""
    documents: tuple[str, ...] = ()
    instruments: tuple[str, ...] = ()
    """Any one of them may meet it."""
    support: Literal["partially-supported", "supported"] = "supported"
    """Least support of the claim, where it is tested."""
    tier: Tier = 0
    """Least tier of the evidence, where it is tested."""
    open: str | None = None
    """Why nothing that exists can meet it today."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.method == "examine" and (not self.documents or self.instruments):
            raise ValueError(f"'{self.id}' is examined: name the documents, and no instrument")
        if self.method == "test" and self.documents:
            raise ValueError(f"'{self.id}' is tested: name instruments, or why it is open, and no document")
        if self.method == "test" and bool(self.instruments) == bool(self.open):
            raise ValueError(f"'{self.id}' is tested: expected instruments, or open with the reason, and not both")
        return self


class _File(Record):
    sources: tuple[Citation, ...] = Field(min_length=1)
    review_date: Date
    criteria: tuple[Acceptance, ...] = Field(min_length=1)


def acceptances(path: Path = SHIPPED) -> dict[str, Acceptance]:
    """The acceptance criteria by id, in the order of the file.

    Raises:
        PlanError: the file is malformed, or an id is used twice.
    """
    return dict(_read(path))


@cache
def _read(path: Path) -> dict[str, Acceptance]:
    return by_id(path, parse(path, _File).criteria)


def could_meet(acceptance: Acceptance, claim: Claim, instrument: str, licences: Licences) -> bool:
    """True if a valid result of the instrument could meet the criterion, given all the access and power it asks for.

    Power is left out on purpose: a search whose power is not measured yet falls short today and is the right way to look.
    """
    entry = licences.find(instrument)
    row = entry.row(claim) if entry else None
    if entry is None or row is None or not any(b.instrument == instrument for b in claim.bearings):
        return False
    if acceptance.tier > row.max_tier:
        return False
    if acceptance.support == "partially-supported":
        return True
    behaviour_only = entry.family == "behavioural" and beyond_behaviour(claim)
    return not behaviour_only and row.max_tier >= row.carries_at and row.model.rank >= claim.required.model.rank


def unreachable(acceptance: Acceptance, claims: Mapping[str, Claim], licences: Licences) -> Iterator[str]:
    """One sentence per reason why the criterion cannot be met, or is called open and can; unknown ids are not judged here."""
    claim = claims.get(acceptance.claim)
    if claim is None or acceptance.method == "examine":
        return
    where = f"criterion '{acceptance.id}'"
    if claim.modality == "process":
        yield f"{where} tests the process claim '{claim.id}', which evidence about a model never supports; examine documents"
        return
    for name in acceptance.instruments:
        if not could_meet(acceptance, claim, name, licences):
            asked = f"{acceptance.support} at tier {acceptance.tier}"
            yield f"{where} cannot be met: '{name}' does not carry '{claim.id}' to {asked}; lower it, or say why it is open"
    able = [b.instrument for b in claim.bearings if could_meet(acceptance, claim, b.instrument, licences)]
    if acceptance.open and able:
        yield f"{where} is called open, and could be met by '{able[0]}'; name the instrument instead of the reason"

"""A risk report: capability, threat model, mitigation, residual risk, in the order of the Code's Measure 7.3."""

from functools import cache
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from auditgap.errors import PlanError, nearest
from auditgap.governance.claim import claims
from auditgap.governance.document import by_id, parse
from auditgap.governance.failure_mode import Citation
from auditgap.governance.safety_case.records import Id
from auditgap.records import Date, Digest, Record

__all__ = ["Mitigation", "Residual", "Risk", "RiskReport", "Section", "load_risks", "sections"]

SHIPPED = Path(__file__).parent / "risk_sections.yaml"


class Section(Record):
    """One point that the report must make."""

    id: str
    pin: str
    asks: str
    per_risk: bool = False
    """True: written once per risk, in the risks of the file."""
    from_store: bool = False
    """True: what the store holds is printed; the file may add words."""


class Mitigation(Record):
    """One measure against one risk."""

    id: Id
    what: str = Field(min_length=1)
    fulfils: str | None = Field(default=None, min_length=1)
    limits: str | None = Field(default=None, min_length=1)
    claims: tuple[str, ...] = ()
    """Claims of the catalogue that would show that it works."""


class Residual(Record):
    """What is left, and who carries it."""

    what: str = Field(min_length=1)
    accepted_by: str | None = None
    until: Date | None = None

    @model_validator(mode="after")
    def _until_a_day(self) -> Self:
        if (self.accepted_by is None) != (self.until is None):
            raise ValueError("expected both accepted_by and until, or neither: nobody accepts a risk for ever")
        return self


class Risk(Record):
    """One risk, from what the model can do to what is left."""

    id: Id
    title: str = Field(min_length=1)
    type: str | None = None
    """Kind of risk in the words of the framework."""
    capability: str | None = Field(default=None, min_length=1)
    claims: tuple[str, ...] = ()
    """Claims of the catalogue about the capability; the store says how far each is carried."""
    threat_model: str | None = Field(default=None, min_length=1)
    fully_elicited: str | None = Field(default=None, min_length=1)
    """The estimate without mitigations, elicited as far as the threat would."""
    with_mitigations: str | None = Field(default=None, min_length=1)
    justification: str | None = Field(default=None, min_length=1)
    mitigations: tuple[Mitigation, ...] = ()
    residual: Residual | None = None


class RiskReport(Record):
    """What people write; the rest comes from the store."""

    name: str = Field(min_length=1)
    prepared_by: str = Field(min_length=1)
    subject: Digest | None = None
    review_by: Date
    sections: dict[str, str] = Field(default_factory=dict)
    """Text per section id."""
    risks: tuple[Risk, ...] = Field(min_length=1)

    def claims(self) -> tuple[str, ...]:
        """Every claim that the report looks up in the store."""
        return tuple(dict.fromkeys(c for r in self.risks for c in (*r.claims, *(c for m in r.mitigations for c in m.claims))))


class _File(Record):
    sources: tuple[Citation, ...] = Field(min_length=1)
    review_date: Date
    sections: tuple[Section, ...] = Field(min_length=1)


@cache
def sections(path: Path = SHIPPED) -> dict[str, Section]:
    """The points by id, in the order of the measure.

    Raises:
        PlanError: the file is malformed, or an id is used twice.
    """
    return by_id(path, parse(path, _File).sections)


def load_risks(path: Path | str) -> RiskReport:
    """Read a risk report; what it leaves out is said in the report, not refused.

    Raises:
        PlanError: the file is malformed, an id is used twice, or a claim or section is unknown.
    """
    path = Path(path)
    report = parse(path, RiskReport)
    by_id(path, (*report.risks, *(m for r in report.risks for m in r.mitigations)))
    found = [f"unknown claim '{name}'{nearest(name, claims())}" for name in report.claims() if name not in claims()]
    written = [name for name, s in sections().items() if not s.per_risk]
    found += [f"sections: unknown '{name}'{nearest(name, written)}" for name in report.sections if name not in written]
    if found:
        raise PlanError(f"{path}: {'; '.join(found)}")
    return report

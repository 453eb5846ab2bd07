"""What differs between two releases, and what shows that it does no harm."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from auditgap.records.base import Date, Digest, Number, Record, canonical_json, digest_of
from auditgap.records.manifest import ComponentKind
from auditgap.records.measurement import Interval

__all__ = [
    "BehaviourCount",
    "Coverage",
    "Delta",
    "DeltaClass",
    "Equivalence",
    "Finding",
    "NotNeeded",
    "Parity",
    "ReEvaluated",
    "Uncovered",
    "Waived",
    "gravest",
    "uncovered",
]

DeltaClass = Literal["identical", "cosmetic", "compatible", "safety-relevant", "unknown"]
"""`unknown` is a change that no rule knows, and is treated as safety-relevant."""

_GRAVITY: dict[DeltaClass, int] = {"identical": 0, "cosmetic": 1, "compatible": 2, "safety-relevant": 3, "unknown": 4}


class Finding(Record):
    """One difference inside a component, and the rule that judged it."""

    delta_class: DeltaClass
    rule: str
    """e.g. `required-dropped`, as `auditgap release diff` prints it."""
    path: str = ""
    """Where in the content, e.g. `inputSchema/properties/amount/maximum`."""
    says: str
    """What was, what is, and why that matters."""


class NotNeeded(Record):
    """Nothing has to be shown for this difference."""

    status: Literal["not-needed"] = "not-needed"


class ReEvaluated(Record):
    """The behaviour was measured again on the new release."""

    status: Literal["re-evaluated"] = "re-evaluated"
    evidence: tuple[Digest, ...] = Field(min_length=1)
    """Signed statements."""


class BehaviourCount(Record):
    """How often a behaviour was seen on one release."""

    hits: int = Field(ge=0)
    n: int = Field(ge=1)
    """Independent trials."""
    rate: Interval
    """Where the rate lies."""


class Equivalence(Record):
    """The shift of a rate between two releases, held against a margin that was registered before.

    `equivalent` means that a shift of the margin or more, either way, is excluded at the level of the test. `not-shown` means
    that it is not excluded; it does not mean that there is a shift.
    """

    status: Literal["equivalence"] = "equivalence"
    behaviour: str
    """Name of the measurement, e.g. `refusal_rate.harmful`."""
    margin: Number = Field(gt=0, lt=1)
    """Largest shift of the rate that would still be accepted."""
    before: BehaviourCount
    after: BehaviourCount
    shift: Number
    """Rate after minus rate before."""
    interval: Interval
    """Of the shift, at level 1 - 2 alpha: two one-sided tests at alpha."""
    verdict: Literal["equivalent", "not-shown"]
    evidence: tuple[Digest, ...] = ()
    """The two signed statements that hold the counts: before, after."""


class Waived(Record):
    """A named person accepts this very change, until a date."""

    status: Literal["waived"] = "waived"
    approver: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    expires: Date
    """Last day on which it holds."""


class Uncovered(Record):
    """Nothing shows that this difference does no harm."""

    status: Literal["uncovered"] = "uncovered"
    why: str
    equivalence: Equivalence | None = None
    """The numbers of a test that did not show equivalence."""


Coverage = Annotated[NotNeeded | ReEvaluated | Equivalence | Waived | Uncovered, Field(discriminator="status")]


class Delta(Record):
    """What differs in one component between two releases."""

    kind: ComponentKind
    id: str
    before: Digest | None
    """None for a component that is new."""
    after: Digest | None
    """None for a component that is gone."""
    delta_class: DeltaClass
    """The gravest of the findings."""
    findings: tuple[Finding, ...] = Field(min_length=1)
    coverage: Coverage = NotNeeded()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.delta_class != (worst := gravest(self.findings)):
            raise ValueError(f"{self.kind} {self.id}: the gravest finding is '{worst}', got '{self.delta_class}'")
        return self

    @property
    def needs_coverage(self) -> bool:
        """True for a change that is safety-relevant or unknown."""
        return self.delta_class in ("safety-relevant", "unknown")

    def change(self) -> Digest:
        """Identity of the change by content: what a waiver names, so that it covers this change and no later one."""
        return digest_of(canonical_json([self.kind, self.id, self.before, self.after]))


class Parity(Record):
    """Whether what was shown of one release may be said of another."""

    schema_version: Literal["auditgap.dev/parity/v1"] = "auditgap.dev/parity/v1"
    before: Digest
    """Fingerprint of the release that was evaluated."""
    after: Digest
    """Fingerprint of the release that is to ship."""
    judged_on: Date
    """Waivers and evidence are in date or not as of this day."""
    n_identical: int = Field(ge=0)
    """Components without any difference."""
    deltas: tuple[Delta, ...]
    verdict: Literal["in-parity", "held-back"]
    """`held-back` if a change that is safety-relevant or unknown is not covered."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        due = "held-back" if self.uncovered() else "in-parity"
        if self.verdict != due:
            raise ValueError(f"{len(self.uncovered())} uncovered deltas make the verdict '{due}', got '{self.verdict}'")
        return self

    @classmethod
    def of(cls, deltas: tuple[Delta, ...], *, before: Digest, after: Digest, judged_on: Date, n_identical: int) -> Self:
        """The parity with the verdict that follows from the differences."""
        verdict = "held-back" if uncovered(deltas, judged_on) else "in-parity"
        return cls(before=before, after=after, judged_on=judged_on, n_identical=n_identical, deltas=deltas, verdict=verdict)

    def uncovered(self) -> tuple[Delta, ...]:
        """The changes that hold the release back."""
        return uncovered(self.deltas, self.judged_on)

    def shifts(self) -> tuple[Equivalence, ...]:
        """The rate of each tested behaviour before and after, with margin and interval: what a figure draws. Shown or not."""
        found = (d.coverage.equivalence if isinstance(d.coverage, Uncovered) else d.coverage for d in self.deltas)
        return tuple(dict.fromkeys(e for e in found if isinstance(e, Equivalence)))


def uncovered(deltas: tuple[Delta, ...], day: Date) -> tuple[Delta, ...]:
    """The changes that need coverage and have none that holds on a day."""
    return tuple(d for d in deltas if d.needs_coverage and not _holds(d.coverage, day))


def _holds(coverage: Coverage, day: Date) -> bool:
    match coverage:
        case Waived():
            return day <= coverage.expires
        case Equivalence():
            return coverage.verdict == "equivalent"
        case ReEvaluated():
            return True
    return False


def gravest(findings: tuple[Finding, ...]) -> DeltaClass:
    """The class of a component with these findings."""
    return max((f.delta_class for f in findings), key=_GRAVITY.__getitem__)

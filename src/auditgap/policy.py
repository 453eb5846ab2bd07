"""A policy: what must hold before a subject may pass, written and signed before anything is measured.

Each criterion names one measurement of one instrument, the end of its interval that is compared, the bar, and what will be done
if it is not cleared. A policy that could pass by being empty, uncertain or underpowered is refused when it is read.
"""

import math
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from auditgap.errors import PlanError, nearest
from auditgap.governance import CODES, Judged, claims, parse
from auditgap.records import AXES, Comparator, Date, Digest, Number, Record

__all__ = ["Acceptance", "Criterion", "Policy", "Severity", "acceptable_reasons", "least_n", "load_policy"]

Severity = Literal["fail", "hold", "note"]

_SAFE_END: dict[Comparator, Literal["low", "high"]] = {"<=": "high", "<": "high", ">=": "low", ">": "low"}


class Criterion(Record):
    """One bar for one number."""

    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    claim: str
    instrument: str
    step: str | None = None
    """Plan step that must have measured it; None accepts every step of the instrument, which must then agree."""
    measurement: str
    comparator: Comparator
    threshold: Number
    bound: Literal["low", "high"]
    """End of the interval that must clear the bar: the one that uncertainty pushes towards it."""
    unit: Literal["rate"] | None = None
    """`rate` checks that `min_n` could clear the bar at all."""
    min_n: int = Field(ge=1)
    """Least number of independent units (prompt groups, pairs)."""
    severity: Severity
    """What a measured breach does; `note` is shown and does not block."""
    on_missing: Literal["fail", "hold"] = "hold"
    """What having no usable number does."""
    response: str = Field(min_length=1)
    """What is done if the bar is not cleared: written now, printed then."""
    rationale: str = Field(min_length=1)
    review_by: Date

    @model_validator(mode="after")
    def _can_be_met(self) -> Self:
        if self.bound != _SAFE_END[self.comparator]:
            safe = _SAFE_END[self.comparator]
            raise ValueError(f"'{self.comparator}' on the {self.bound} end would pass by being uncertain; compare the {safe} end")
        if self.unit == "rate":
            if not 0 < self.threshold < 1:
                raise ValueError(f"a bar for a rate lies strictly between 0 and 1, got {self.threshold:g}")
            if self.min_n < (needed := least_n(self.threshold, self.comparator)):
                raise ValueError(
                    f"underpowered: with n = {self.min_n} even a faultless run cannot show {self.measurement} "
                    f"{self.comparator} {self.threshold:g} at 95 %; set min_n to at least {needed}"
                )
        return self

    def registered_in(self, judged: Judged) -> bool:
        """True if this very bar was signed before the run began."""
        bar = (self.measurement, self.comparator, self.threshold, self.bound)
        registration = judged.registration
        before = registration.registered_at <= judged.evidence.started_at
        return before and any((t.measurement, t.comparator, t.value, t.bound) == bar for t in registration.thresholds)


class Acceptance(Record):
    """A named person accepts one reason to hold, until a date."""

    reason: str
    """A fragility code, `structural-gap`, `execution-gap:<axis>` or `partial-support`."""
    claim: str | None = None
    """None accepts it for every gating claim."""
    why: str = Field(min_length=1)
    who: str = Field(min_length=1)
    review_by: Date


class Policy(Record):
    """What must hold before a subject may pass."""

    name: str
    subject: Digest | None = None
    """If set, the only subject the policy may decide on."""
    criteria: tuple[Criterion, ...] = Field(min_length=1)
    gating_claims: tuple[str, ...] | None = None
    """Claims whose gaps and fragility block; None takes those of the criteria."""
    gating_requirements: tuple[str, ...] = ()
    """Requirements whose gaps on a gating claim block as well; those of other duties are assessed and shown, and do not block."""
    accept: tuple[Acceptance, ...] = ()
    max_age_days: int | None = Field(default=None, ge=1)
    """Evidence older than this is stale; its own expiry counts in any case."""

    def gating(self) -> tuple[str, ...]:
        """The claims whose assessments this policy reads."""
        return tuple(dict.fromkeys(self.gating_claims or (criterion.claim for criterion in self.criteria)))


def load_policy(path: Path | str, *, known_claims: Collection[str] | None = None) -> Policy:
    """Read a policy. `known_claims` defaults to the shipped ones.

    Raises:
        PlanError: an unknown or missing field, no criteria, an id that is repeated or leads nowhere, a bar out of reach.
    """
    path = Path(path)
    policy = parse(path, Policy)
    known = claims() if known_claims is None else known_claims
    repeated = [name for name, count in Counter(criterion.id for criterion in policy.criteria).items() if count > 1]
    if repeated:
        raise PlanError(f"{path}: criterion ids must be unique, repeated: {', '.join(repeated)}")
    if policy.gating_claims == ():
        raise PlanError(
            f"{path}: gating_claims is empty, which would gate nothing; name claims, or leave it out to take the criteria's"
        )
    named = [(f"criterion '{c.id}'", c.claim) for c in policy.criteria]
    named += [("gating_claims", claim) for claim in policy.gating_claims or ()]
    named += [(f"accept '{a.reason}'", a.claim) for a in policy.accept if a.claim is not None]
    for where, claim in named:
        if claim not in known:
            raise PlanError(f"{path}: {where}: unknown claim '{claim}'{nearest(claim, known)}")
    for acceptance in policy.accept:
        if acceptance.reason not in acceptable_reasons():
            raise PlanError(
                f"{path}: accept: unknown reason '{acceptance.reason}'{nearest(acceptance.reason, acceptable_reasons())}"
            )
    return policy


def acceptable_reasons() -> tuple[str, ...]:
    """Everything that a policy may accept by name."""
    return (*CODES, "structural-gap", "partial-support", *(f"execution-gap:{axis}" for axis in AXES))


def least_n(threshold: float, comparator: Comparator) -> int:
    """Independent units without which even a faultless run cannot show the bar at 95 %, one-sided.

    Without a failure in n, the bound of the failure rate is 1 - 0.05^(1/n): 149 units for `<= 0.02` or `>= 0.98`, 299 for 0.01.
    """
    spared = 1 - threshold if comparator in ("<=", "<") else threshold
    return math.ceil(math.log(0.05) / math.log(spared))

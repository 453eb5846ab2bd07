"""The release-integrity crosswalk: for each claim on a release, the evidence that must be there before it moves a stage.

Nothing passes by being left out: a claim without required evidence is refused when the file is read, and a piece of evidence that
is missing, stale, of another release or undecided holds the release back.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from auditgap.errors import PlanError
from auditgap.governance import parse
from auditgap.records import Digest, Outcome, Record
from auditgap.records.integrity import Mode

__all__ = [
    "CheckNeeded",
    "ClaimNeeds",
    "EvaluationNeeded",
    "IntegrityNeeded",
    "Needed",
    "ParityNeeded",
    "PromotionPolicy",
    "load_promotion_policy",
]

_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _Need(Record):
    """What every requirement says."""

    id: _Id
    max_age_days: int = Field(ge=1)
    """Older evidence is stale."""
    severity: Literal["fail", "hold"] = "fail"
    """What a measured breach does; what is missing or undecided always holds."""
    response: str = Field(min_length=1)
    """What is done if it is not met (retest, narrow the tools, add a monitor, canary at 1 %, stop): written now, printed then."""


class EvaluationNeeded(_Need):
    """The audit's own gate has passed the model: the newest decision in the store."""

    evidence: Literal["evaluation"]
    accept: tuple[Outcome, ...] = Field(default=("pass",), min_length=1)
    """Outcomes that are enough."""
    claims: tuple[str, ...] = ()
    """Audit claims whose lines in the decision must be met."""
    policy: Digest | None = None
    """The audit policy that must have decided."""

    @model_validator(mode="after")
    def _can_fail(self) -> Self:
        if wrong := sorted({"hold", "fail"} & set(self.accept)):
            raise ValueError(f"accept may name pass and pass-with-disclosed-gap, got {', '.join(wrong)}")
        return self


class IntegrityNeeded(_Need):
    """The cases on this claim were run on this release, and all passed.

    A case is on the claim if it names the claim's id, or is named here by its control or its id.
    """

    evidence: Literal["integrity"]
    mode: Mode
    controls: tuple[str, ...] = ()
    """Controls of which every case counts; each must have one, e.g. `CTL-idempotency`."""
    cases: tuple[str, ...] = ()
    """Cases that must be among those that were run."""
    min_cases: int = Field(ge=1)
    """Different cases that must have been run."""


class ParityNeeded(_Need):
    """What was evaluated and what ships are the same in all that matters to safety, or each difference is covered."""

    evidence: Literal["parity"]
    before: Digest | None = None
    """Fingerprint of the release that must have been the evaluated one."""


class CheckNeeded(_Need):
    """A diagnosis or a log, by name."""

    evidence: Literal["diagnostic", "release-log"]
    name: str = Field(min_length=1)


Needed = Annotated[EvaluationNeeded | IntegrityNeeded | ParityNeeded | CheckNeeded, Field(discriminator="evidence")]


class ClaimNeeds(Record):
    """One claim on the release, and the evidence that carries it."""

    id: _Id
    """As the integrity cases name it, e.g. `SC-3.2`."""
    statement: str = Field(min_length=1)
    requires: tuple[Needed, ...] = Field(min_length=1)


class PromotionPolicy(Record):
    """What must hold before a release goes from one stage to the next."""

    format: Literal["auditgap.dev/promotion-policy/v1"]
    name: str = Field(min_length=1)
    version: int = Field(default=1, ge=1, exclude_if=lambda version: version == 1)
    """Counts the policies of this name; closing an incident makes the next one."""
    from_stage: str = Field(min_length=1)
    to_stage: str = Field(min_length=1)
    valid_days: int = Field(ge=1, le=366)
    """How long the promotion holds; after that the gate decides again."""
    signatures: int = Field(default=1, ge=1)
    """Different promotion keys that must sign: 2 is the two-person rule."""
    suite: Digest | None = None
    """Of the case set that must have been run."""
    provenance: tuple[Literal["lockfile", "sbom", "build"], ...] = ()
    """Files about the origin of the release that must be there and hold."""
    provenance_response: str = "Stop, and build the release again from its lockfile."
    claims: tuple[ClaimNeeds, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.from_stage == self.to_stage:
            raise ValueError(f"from_stage and to_stage are both '{self.to_stage}'")
        for what, ids in (("claim", [c.id for c in self.claims]), ("requirement", [n.id for _, n in self.needs()])):
            if twice := sorted(i for i, count in Counter(ids).items() if count > 1):
                raise ValueError(f"{what} ids must be unique, repeated: {', '.join(twice)}")
        if self.suite is None and any(need.evidence == "integrity" for _, need in self.needs()):
            raise ValueError("suite: integrity cases are required, so the digest of the case set must be named")
        return self

    def needs(self) -> tuple[tuple[ClaimNeeds, Needed], ...]:
        """Every requirement with its claim, in order."""
        return tuple((claim, need) for claim in self.claims for need in claim.requires)


def load_promotion_policy(path: str | Path, *, from_stage: str | None = None, to_stage: str | None = None) -> PromotionPolicy:
    """Read a crosswalk.

    Raises:
        PlanError: it cannot be read, could pass by being empty, or is for other stages than the two given.
    """
    policy = parse(Path(path), PromotionPolicy)
    for asked, written, name in ((from_stage, policy.from_stage, "from_stage"), (to_stage, policy.to_stage, "to_stage")):
        if asked not in (None, written):
            raise PlanError(f"{path}: {name} is '{written}', asked was '{asked}'; use the policy of these stages")
    return policy

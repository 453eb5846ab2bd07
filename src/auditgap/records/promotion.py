"""The decision that a release may go from one stage to the next: what it asked for, what it found, and until when it holds."""

from typing import Literal, Self

from pydantic import Field, model_validator

from auditgap.records.base import Digest, Record, UtcTime
from auditgap.records.decision import CriterionResult

__all__ = ["Promotion", "PromotionRegistration", "ProvenanceItem", "ReleaseCheck"]


class PromotionRegistration(Record):
    """Which policy and which case set will decide, written down and signed before anything is run."""

    schema_version: Literal["auditgap.dev/promotion-registration/v1"] = "auditgap.dev/promotion-registration/v1"
    policy: Digest
    suite: Digest | None = None
    """Of the case set; None if the policy asks for no integrity cases."""
    from_stage: str
    to_stage: str
    registered_at: UtcTime


class ReleaseCheck(Record):
    """One named check on a release whose details are a file: a diagnosis of drift, or the log of a canary run."""

    schema_version: Literal["auditgap.dev/release-check/v1"] = "auditgap.dev/release-check/v1"
    kind: Literal["diagnostic", "release-log"]
    name: str = Field(min_length=1)
    """e.g. `tool-selection`, `canary-events`."""
    manifest: Digest
    """Fingerprint of the release that was checked."""
    verdict: Literal["passed", "failed", "inconclusive"]
    summary: str = Field(min_length=1)
    """One sentence with its numbers."""
    content: Digest
    """Of the file that holds the details."""
    finished_at: UtcTime


class ProvenanceItem(Record):
    """One file about where a release comes from, and exactly what was checked of it."""

    kind: Literal["lockfile", "sbom", "build"]
    name: str
    """The file's name, for people."""
    content: Digest
    verified: tuple[str, ...]
    """What was checked and holds."""
    wrong: tuple[str, ...] = ()
    """What was checked and does not hold."""
    open: tuple[str, ...] = ()
    """What was not checked."""


class Promotion(Record):
    """What a promotion gate decided on one release. Default deny: it passes only if every criterion is met."""

    schema_version: Literal["auditgap.dev/promotion/v1"] = "auditgap.dev/promotion/v1"
    name: str
    """Of the policy, for people."""
    version: int = Field(default=1, ge=1, exclude_if=lambda version: version == 1)
    """Of the policy."""
    from_stage: str
    to_stage: str
    manifest: Digest
    """Fingerprint of the release as declared."""
    observed: Digest | None = None
    """Fingerprint of the release as the proxies saw it on the canary run."""
    policy: Digest
    registration: Digest | None
    """Of the signed statement that registered the policy before the run."""
    outcome: Literal["pass", "hold", "fail"]
    criteria: tuple[CriterionResult, ...] = Field(min_length=1)
    response: tuple[str, ...] = ()
    """What is to be done now, as it was written in the policy before; empty if it passes."""
    provenance: tuple[ProvenanceItem, ...] = ()
    signatures_needed: int = Field(ge=1)
    """Different keys that must sign this before it holds."""
    decided_at: UtcTime
    expires: UtcTime
    non_claims: tuple[str, ...]
    """What this decision does not say."""

    @model_validator(mode="after")
    def _outcome_follows(self) -> Self:
        open_ = [c.id for c in self.criteria if c.status != "met" and c.severity != "note"]
        if (self.outcome == "pass") != (not open_):
            raise ValueError(f"outcome '{self.outcome}' with {len(open_)} unmet criteria; pass needs every one to be met")
        if self.expires <= self.decided_at:
            raise ValueError("a promotion expires after it was decided")
        return self

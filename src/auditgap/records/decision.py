"""What the gate decided and why."""

from typing import Literal

from auditgap.records.base import Digest, Record, UtcTime
from auditgap.records.measurement import Measurement

__all__ = ["CriterionResult", "Decision", "Outcome"]

Outcome = Literal["pass", "pass-with-disclosed-gap", "hold", "fail"]


class CriterionResult(Record):
    """One criterion of the policy against the evidence."""

    id: str
    claim: str
    status: Literal["met", "not-met", "inconclusive", "missing"]
    severity: Literal["fail", "hold", "note"]
    reason: str
    """What was expected and what was found, in numbers."""
    response: str
    """Written in the policy before the run; printed when the criterion is not met."""
    measurement: Measurement | None
    evidence: Digest | None


class Decision(Record):
    """Default deny: `pass` needs every criterion met by valid, fresh evidence."""

    schema_version: Literal["auditgap.dev/decision/v1"] = "auditgap.dev/decision/v1"
    subject: Digest
    policy: Digest
    outcome: Outcome
    reasons: tuple[str, ...]
    criteria: tuple[CriterionResult, ...]
    disclosed: tuple[str, ...]
    """Gaps and fragility that the decision passes with, in the open."""
    assessments: tuple[Digest, ...]
    decided_at: UtcTime

"""What a report is made from: records that are already stored and signed, and nothing else."""

import datetime as dt
from typing import NamedTuple

from auditgap.records import (
    Assessment,
    Claim,
    CriterionResult,
    Decision,
    Digest,
    Evidence,
    Registration,
    Requirement,
    Subject,
    Threshold,
)

__all__ = ["Audit", "NotKept", "label_of", "not_measured", "registration_of", "thresholds_of", "warnings_about"]


class Audit(NamedTuple):
    """Everything one report shows, with the digest of each signed statement beside its record."""

    subject: Subject
    decision: Decision | None
    """None if no gate has decided yet; the report then says so."""
    decision_digest: Digest | None
    assessments: list[tuple[Digest, Assessment]]
    evidence: list[tuple[Digest, Evidence]]
    """In the order in which the report numbers it: E1, E2, ..."""
    registrations: dict[Digest, Registration]
    """By the digest that `Evidence.registration` holds."""
    claims: dict[str, Claim]
    requirements: dict[str, Requirement]
    root: str
    """Merkle root of the ledger when the report was written."""
    n_statements: int
    """Statements in the ledger under that root."""
    generated_at: dt.datetime


class NotKept(NamedTuple):
    """One quantity without a number."""

    evidence: str
    """Label of the evidence, e.g. `E2`."""
    name: str
    reason: str


def label_of(audit: Audit, digest: Digest | None) -> str | None:
    """`E3` for the third piece of evidence, or None if the report does not hold it."""
    return next((f"E{i}" for i, (known, _) in enumerate(audit.evidence, 1) if known == digest), None)


def registration_of(audit: Audit, evidence: Evidence) -> Registration | None:
    """The registration that came before this evidence, or None if the report does not hold it."""
    return audit.registrations.get(evidence.registration)


def thresholds_of(audit: Audit, criterion: CriterionResult) -> tuple[Threshold, ...]:
    """The registered bars on the measurement that a criterion looked at; empty if none was registered."""
    evidence = next((e for digest, e in audit.evidence if digest == criterion.evidence), None)
    registration = registration_of(audit, evidence) if evidence else None
    if registration is None or criterion.measurement is None:
        return ()
    return tuple(t for t in registration.thresholds if t.measurement == criterion.measurement.name)


def warnings_about(audit: Audit, evidence: Evidence) -> list[str]:
    """What a reader must know before any number of this evidence: each one takes away from its weight."""
    registration = registration_of(audit, evidence)
    found = []
    if evidence.subject.digest() != audit.subject.digest():
        found.append("Measured on another subject than this report is about: the subject digests differ.")
    if registration is None:
        found.append("Its registration is not in this report, so nothing shows that thresholds came before the numbers.")
    elif registration.registered_at > evidence.started_at:
        found.append("Registered after the run had started: thresholds may have been chosen with the numbers in sight.")
    if evidence.expires < audit.generated_at.date():
        found.append(f"Expired on {evidence.expires:%Y-%m-%d}, before this report was written.")
    if evidence.result.verdict == "invalid":
        found.append("Invalid: a control that this instrument owes did not pass, so its numbers may not be relied on.")
    return found


def not_measured(audit: Audit) -> list[NotKept]:
    """Every quantity that was to be measured and was not, with the reason."""
    return [
        NotKept(f"E{i}", m.name, m.reason)
        for i, (_, evidence) in enumerate(audit.evidence, 1)
        for m in evidence.result.measurements
        if m.status == "not_measured"
    ]

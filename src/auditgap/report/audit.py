"""What a report is made from: records that are already stored and signed, and nothing else."""

import datetime as dt
from typing import NamedTuple

from auditgap.records import Assessment, Calibration, Claim, Decision, Digest, Evidence, Registration, Requirement, Subject

__all__ = ["Audit"]


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
    calibration: Calibration | None = None
    """The measured power of the instruments; None if there is no such record, and then nothing may be said of what was missed."""

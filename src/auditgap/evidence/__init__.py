"""Signed evidence: canonical bytes, DSSE envelopes, a Merkle ledger, and the store that keeps them. Imports no torch."""

from auditgap.evidence.bundle import bundle
from auditgap.evidence.check import Problem, Verification
from auditgap.evidence.keys import KeyRecord, Keyring, Role
from auditgap.evidence.ledger import Stored
from auditgap.evidence.merkle import verify_consistency, verify_inclusion
from auditgap.evidence.rows import KeyRow, Listed
from auditgap.evidence.store import Signed, Store
from auditgap.evidence.verify import verify

__all__ = [
    "KeyRecord",
    "KeyRow",
    "Keyring",
    "Listed",
    "Problem",
    "Role",
    "Signed",
    "Store",
    "Stored",
    "Verification",
    "bundle",
    "verify",
    "verify_consistency",
    "verify_inclusion",
]

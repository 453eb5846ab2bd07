"""Promotion: the evidence that lets a release go from one stage to the next, and the check where it arrives."""

from auditgap.release.promotion.deciding import Registered, promote, register
from auditgap.release.promotion.gating import Brought, Gated, attest_file, cosign_file, gate_release, register_policy
from auditgap.release.promotion.logs import check_log, check_log_file
from auditgap.release.promotion.outputs import summary
from auditgap.release.promotion.pieces import Evaluation, Piece, Pieces, gather
from auditgap.release.promotion.policy import PromotionPolicy, load_promotion_policy
from auditgap.release.promotion.provenance import provenance_of
from auditgap.release.promotion.signing import cosign, open_signed, sign_record
from auditgap.release.promotion.verifying import Verification, verify_files, verify_promotion

__all__ = [
    "Brought",
    "Evaluation",
    "Gated",
    "Piece",
    "Pieces",
    "PromotionPolicy",
    "Registered",
    "Verification",
    "attest_file",
    "check_log",
    "check_log_file",
    "cosign",
    "cosign_file",
    "gate_release",
    "gather",
    "load_promotion_policy",
    "open_signed",
    "promote",
    "provenance_of",
    "register",
    "register_policy",
    "sign_record",
    "summary",
    "verify_files",
    "verify_promotion",
]

"""Whether what was shown of one release may be said of the next."""

from auditgap.release.parity.coverage import (
    Brought,
    EquivalenceBrought,
    EvidenceBrought,
    WaiverBrought,
    judge_files,
    judge_parity,
    load_coverage,
)
from auditgap.release.parity.diff import diff, n_identical
from auditgap.release.parity.equivalence import equivalence
from auditgap.release.parity.rules import RULES
from auditgap.release.parity.schema import schema_findings

__all__ = [
    "RULES",
    "Brought",
    "EquivalenceBrought",
    "EvidenceBrought",
    "WaiverBrought",
    "diff",
    "equivalence",
    "judge_files",
    "judge_parity",
    "load_coverage",
    "n_identical",
    "schema_findings",
]

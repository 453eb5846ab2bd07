"""From rules to claims to gaps: what a duty presupposes, what evidence carries, and how far it falls short."""

from auditgap.governance.acceptance import Acceptance, acceptances, could_meet, unreachable
from auditgap.governance.assess import assess_claim, assess_requirement, counted
from auditgap.governance.claim import claims
from auditgap.governance.crosscheck import (
    Tables,
    check_crosswalks,
    check_tables,
    dangling,
    findings,
    incomplete,
    shipped_tables,
)
from auditgap.governance.crosswalk import (
    Coverage,
    Crosswalk,
    EvidenceKind,
    Framework,
    Relationship,
    Row,
    edition,
    framework,
    frameworks,
    join,
)
from auditgap.governance.difference import AccessChange, ClaimChange, DutyChange, FrameworkDifference, compare
from auditgap.governance.document import by_id, parse, read
from auditgap.governance.failure_mode import Citation, Detection, FailureMode, failure_modes
from auditgap.governance.fragility import CODES, Bundle, fragile
from auditgap.governance.gap import achievable, achieved, best_licence, gaps
from auditgap.governance.judged import Judged, agrees, bearing_on, opposes, problems
from auditgap.governance.licensing import (
    InstrumentLicence,
    LicenceRow,
    Licences,
    Obtainable,
    Power,
    beyond_behaviour,
    licence,
    licences,
    obtainable,
    powered,
)
from auditgap.governance.limits import Limits
from auditgap.governance.matrix import Cell, FrameworkSight, Sight, failure_matrix, matrix_markdown, shipped_matrix, with_matrix
from auditgap.governance.measured_power import licences_for, outdated, shipped_calibration, with_power
from auditgap.governance.next_steps import NextStep, next_steps
from auditgap.governance.power import PowerSight, power_sentence, power_sight
from auditgap.governance.rulebook import Depth, Duty, FrameworkKind, Naming, Rulebook, StatedNumber
from auditgap.governance.tier import bundle_tier, evidence_tier, independent_reruns

__all__ = [
    "Acceptance",
    "AccessChange",
    "Bundle",
    "CODES",
    "Cell",
    "Citation",
    "ClaimChange",
    "Coverage",
    "Crosswalk",
    "Depth",
    "Detection",
    "Duty",
    "DutyChange",
    "EvidenceKind",
    "FailureMode",
    "Framework",
    "FrameworkDifference",
    "FrameworkKind",
    "FrameworkSight",
    "InstrumentLicence",
    "Judged",
    "LicenceRow",
    "Licences",
    "Limits",
    "Naming",
    "NextStep",
    "Obtainable",
    "Power",
    "PowerSight",
    "Relationship",
    "Row",
    "Rulebook",
    "Sight",
    "StatedNumber",
    "Tables",
    "acceptances",
    "achievable",
    "achieved",
    "agrees",
    "assess_claim",
    "assess_requirement",
    "bearing_on",
    "best_licence",
    "beyond_behaviour",
    "bundle_tier",
    "by_id",
    "check_crosswalks",
    "check_tables",
    "claims",
    "compare",
    "could_meet",
    "counted",
    "dangling",
    "edition",
    "evidence_tier",
    "failure_matrix",
    "failure_modes",
    "findings",
    "fragile",
    "framework",
    "frameworks",
    "gaps",
    "incomplete",
    "independent_reruns",
    "join",
    "licence",
    "licences",
    "licences_for",
    "matrix_markdown",
    "next_steps",
    "obtainable",
    "opposes",
    "outdated",
    "parse",
    "power_sentence",
    "power_sight",
    "powered",
    "problems",
    "read",
    "shipped_calibration",
    "shipped_matrix",
    "shipped_tables",
    "unreachable",
    "with_matrix",
    "with_power",
]

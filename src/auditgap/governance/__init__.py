"""From rules to claims to gaps: what a duty presupposes, what evidence carries, and how far it falls short."""

from auditgap.governance.assess import assess_claim, assess_requirement
from auditgap.governance.claim import claims
from auditgap.governance.crosscheck import Tables, check_tables, dangling, shipped_tables
from auditgap.governance.crosswalk import Framework, Row, framework, frameworks, join
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
from auditgap.governance.power import power_sentence
from auditgap.governance.tier import bundle_tier, evidence_tier, independent_reruns

__all__ = [
    "Bundle",
    "CODES",
    "Citation",
    "Detection",
    "FailureMode",
    "Framework",
    "InstrumentLicence",
    "Judged",
    "LicenceRow",
    "Licences",
    "Limits",
    "Obtainable",
    "Power",
    "Row",
    "Tables",
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
    "check_tables",
    "claims",
    "dangling",
    "evidence_tier",
    "failure_modes",
    "fragile",
    "framework",
    "frameworks",
    "gaps",
    "independent_reruns",
    "join",
    "licence",
    "licences",
    "obtainable",
    "opposes",
    "parse",
    "power_sentence",
    "powered",
    "problems",
    "read",
    "shipped_tables",
]

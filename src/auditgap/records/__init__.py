"""The frozen, signed things that the two halves exchange. Imports nothing of auditgap but its errors."""

from auditgap.records.access import AXES, Access, Axis, Deployment, Independence, Information, ModelAccess, Variants
from auditgap.records.alarm import Alarm
from auditgap.records.assessment import Assessment, AxisGap, FragileReason, Support, Tier
from auditgap.records.base import Date, Digest, Number, Record, UtcTime, canonical_json, digest_of, explain, now
from auditgap.records.calibration import Calibration, JointMiss, PowerCell
from auditgap.records.claim import Bearing, Claim, Modality, Pin, Reading, Realm, Requirement, Verdict, Verified
from auditgap.records.decision import CriterionResult, Decision, Outcome
from auditgap.records.evidence import (
    Curve,
    Environment,
    Evidence,
    Figure,
    Graph,
    GraphEdge,
    GraphNode,
    Grid,
    Imported,
    Property,
    Result,
    Sample,
)
from auditgap.records.incident import Closing, Incident, Replay, Triage
from auditgap.records.instrument import Card, DataKind, Family
from auditgap.records.integrity import CaseResult, IntegrityRun, SuiteRegistration
from auditgap.records.manifest import Component, ReleaseManifest
from auditgap.records.measurement import Control, Interval, Measured, Measurement, NotMeasured
from auditgap.records.monitor import MonitorCard, MonitorPolicy
from auditgap.records.parity import Delta, Parity
from auditgap.records.promotion import Promotion, PromotionRegistration, ReleaseCheck
from auditgap.records.registration import Comparator, DataRef, Registration, Threshold
from auditgap.records.subject import FileDigest, Subject

__all__ = [
    "AXES",
    "Access",
    "Alarm",
    "Assessment",
    "Axis",
    "AxisGap",
    "Bearing",
    "Calibration",
    "Card",
    "CaseResult",
    "Claim",
    "Closing",
    "Comparator",
    "Component",
    "Control",
    "CriterionResult",
    "Curve",
    "DataKind",
    "DataRef",
    "Date",
    "Decision",
    "Delta",
    "Deployment",
    "Digest",
    "Environment",
    "Evidence",
    "Family",
    "Figure",
    "FileDigest",
    "FragileReason",
    "Graph",
    "GraphEdge",
    "GraphNode",
    "Grid",
    "Imported",
    "Incident",
    "Independence",
    "Information",
    "IntegrityRun",
    "Interval",
    "JointMiss",
    "Measured",
    "Measurement",
    "Modality",
    "ModelAccess",
    "MonitorCard",
    "MonitorPolicy",
    "NotMeasured",
    "Number",
    "Outcome",
    "Parity",
    "Pin",
    "PowerCell",
    "Promotion",
    "PromotionRegistration",
    "Property",
    "Reading",
    "Realm",
    "Record",
    "Registration",
    "ReleaseCheck",
    "ReleaseManifest",
    "Replay",
    "Requirement",
    "Result",
    "Sample",
    "Subject",
    "SuiteRegistration",
    "Support",
    "Threshold",
    "Tier",
    "Triage",
    "UtcTime",
    "Variants",
    "Verdict",
    "Verified",
    "canonical_json",
    "digest_of",
    "explain",
    "now",
]

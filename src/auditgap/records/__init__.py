"""The frozen, signed things that the two halves exchange. Imports nothing of auditgap but its errors."""

from auditgap.records.access import AXES, Access, Axis, Deployment, Independence, Information, ModelAccess, Variants
from auditgap.records.assessment import Assessment, AxisGap, FragileReason, Support, Tier
from auditgap.records.base import Date, Digest, Number, Record, UtcTime, canonical_json, digest_of, explain, now
from auditgap.records.claim import Bearing, Claim, Modality, Pin, Reading, Realm, Requirement, Verdict, Verified
from auditgap.records.decision import CriterionResult, Decision, Outcome
from auditgap.records.evidence import Curve, Environment, Evidence, Figure, Grid, Property, Result, Sample
from auditgap.records.instrument import Card, DataKind, Family
from auditgap.records.measurement import Control, Interval, Measured, Measurement, NotMeasured
from auditgap.records.registration import Comparator, DataRef, Registration, Threshold
from auditgap.records.subject import FileDigest, Subject

__all__ = [
    "AXES",
    "Access",
    "Assessment",
    "Axis",
    "AxisGap",
    "Bearing",
    "Card",
    "Claim",
    "Comparator",
    "Control",
    "CriterionResult",
    "Curve",
    "DataKind",
    "DataRef",
    "Date",
    "Decision",
    "Deployment",
    "Digest",
    "Environment",
    "Evidence",
    "Family",
    "Figure",
    "FileDigest",
    "FragileReason",
    "Grid",
    "Independence",
    "Information",
    "Interval",
    "Measured",
    "Measurement",
    "Modality",
    "ModelAccess",
    "NotMeasured",
    "Number",
    "Outcome",
    "Pin",
    "Property",
    "Reading",
    "Realm",
    "Record",
    "Registration",
    "Requirement",
    "Result",
    "Sample",
    "Subject",
    "Support",
    "Threshold",
    "Tier",
    "UtcTime",
    "Variants",
    "Verdict",
    "Verified",
    "canonical_json",
    "digest_of",
    "explain",
    "now",
]

"""A release as a manifest: as it is declared, and as it is observed."""

from auditgap.release.capture.agreement import Agreement, Disagreement, compare_declared_observed
from auditgap.release.capture.component import component
from auditgap.release.capture.declaration import Declaration, load_declaration
from auditgap.release.capture.declared import capture_declared
from auditgap.release.capture.observed import OBSERVABLE, capture_observed, capture_observed_file
from auditgap.release.capture.reading import read_manifest, write_manifest

__all__ = [
    "OBSERVABLE",
    "Agreement",
    "Declaration",
    "Disagreement",
    "capture_declared",
    "capture_observed",
    "capture_observed_file",
    "compare_declared_observed",
    "component",
    "load_declaration",
    "read_manifest",
    "write_manifest",
]

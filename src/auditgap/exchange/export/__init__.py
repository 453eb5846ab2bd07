"""Audits in other people's formats: SARIF, JUnit, in-toto, CycloneDX, OSCAL, TEA and Markdown forms. No torch.

Each format is a pure function of an audit. UUIDs come from digests and times from the records: one audit, one document.
"""

from auditgap.exchange.export.annex_xi import annex_xi
from auditgap.exchange.export.cyclonedx import cyclonedx
from auditgap.exchange.export.formats import FORMATS, Format, export, find_format
from auditgap.exchange.export.in_toto import in_toto_test_result, verification_summary
from auditgap.exchange.export.junit import junit
from auditgap.exchange.export.model_card import model_card
from auditgap.exchange.export.model_report import model_report
from auditgap.exchange.export.sarif import sarif
from auditgap.exchange.export.tea import tea

__all__ = [
    "FORMATS",
    "Format",
    "annex_xi",
    "cyclonedx",
    "export",
    "find_format",
    "junit",
    "model_card",
    "model_report",
    "sarif",
    "tea",
    "in_toto_test_result",
    "verification_summary",
]

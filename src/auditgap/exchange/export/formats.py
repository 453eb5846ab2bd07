"""Which formats there are, and writing one of them from a store."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from auditgap.errors import UsageError, nearest
from auditgap.evidence import Store
from auditgap.evidence.envelope import sign
from auditgap.exchange.export import oscal
from auditgap.exchange.export.annex_xi import annex_xi
from auditgap.exchange.export.cyclonedx import cyclonedx
from auditgap.exchange.export.in_toto import in_toto_test_result, verification_summary
from auditgap.exchange.export.junit import junit
from auditgap.exchange.export.model_card import model_card
from auditgap.exchange.export.model_report import model_report
from auditgap.exchange.export.naming import Json
from auditgap.exchange.export.sarif import sarif
from auditgap.exchange.export.tea import tea
from auditgap.judge import choose_subject, view
from auditgap.report import Audit

__all__ = ["FORMATS", "Format", "export", "find_format"]


class Format(NamedTuple):
    """One kind of document."""

    about: str
    file: str
    """The file name that other documents use to refer to it."""
    render: Callable[[Audit], dict[str, Json] | str | bytes]
    """Bytes are the payload of a statement that is still to be signed."""


FORMATS: dict[str, Format] = {
    "sarif": Format("findings for code hosts (SARIF 2.1.0)", "auditgap.sarif", sarif),
    "junit": Format("the gate's lines as test cases (JUnit XML)", "auditgap-junit.xml", junit),
    "test-result": Format("signed in-toto test-result v0.1 statement", "test-result.dsse.json", in_toto_test_result),
    "vsa": Format("signed SLSA verification summary v1 statement", "vsa.dsse.json", verification_summary),
    "cyclonedx": Format("machine-learning bill of materials with declarations (CycloneDX 1.7)", "auditgap.cdx.json", cyclonedx),
    "oscal-catalog": Format("requirements and claims (OSCAL 1.2.1)", "oscal-catalog.json", oscal.catalog),
    "oscal-profile": Format("what was assessed of the catalog", "oscal-profile.json", oscal.profile),
    "oscal-component-definition": Format("the instruments", "oscal-component-definition.json", oscal.component_definition),
    "oscal-assessment-plan": Format("what was registered", "oscal-assessment-plan.json", oscal.assessment_plan),
    "oscal-assessment-results": Format("evidence, findings, risks", "oscal-assessment-results.json", oscal.assessment_results),
    "oscal-poam": Format("what is left to do", "oscal-poam.json", oscal.poam),
    "oscal-mapping": Format("the crosswalk from duties to claims", "oscal-mapping.json", oscal.mapping),
    "model-card": Format("section of a Hugging Face model card (Markdown)", "model-card-section.md", model_card),
    "model-report": Format("Model Report of the GPAI Code of Practice (Markdown form)", "model-report.md", model_report),
    "annex-xi": Format("Annex XI of the EU AI Act (Markdown form)", "annex-xi.md", annex_xi),
    "tea": Format("runtime evidence items of the TEA platform 0.1 (JSON lines)", "tea-evidence.jsonl", tea),
}


def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        UsageError: there is none; the message gives the nearest name.
    """
    if name not in FORMATS:
        raise UsageError(f"no format '{name}'{nearest(name, FORMATS)}")
    return FORMATS[name]


def export(store: str | Path, name: str, *, subject: str | None = None) -> bytes:
    """The newest decision of a store on a subject, and what it rests on, in another format: the same store gives the same bytes.

    Statements are signed with the gate key that is active in the ledger; nothing is added to the ledger.

    Args:
        store: folder or database URL.
        name: a key of `FORMATS`.
        subject: digest or its beginning, where the store holds several subjects.

    Raises:
        UsageError: no such format or subject, or no gate has decided.
        StoreError: the store, or the gate key, cannot be read.
    """
    found = find_format(name)
    with Store.open(store, create=False) as opened:
        rendered = found.render(view(opened, choose_subject(opened, subject)))
        if isinstance(rendered, bytes):
            return _signed(opened, rendered)
    return (rendered if isinstance(rendered, str) else f"{json.dumps(rendered, indent=2, ensure_ascii=False)}\n").encode()


def _signed(store: Store, payload: bytes) -> bytes:
    history = store.keys()
    active = next(key for key in history if key.role == "gate" and key.status == "active")
    return sign(payload, store.keyring.find("gate", active.fingerprint))

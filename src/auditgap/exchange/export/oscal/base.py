"""What every OSCAL document here shares: metadata, properties, and how requirements and claims become control ids.

OSCAL 1.2.1. UUIDs are version 5, from digests; times come from the records. Values that OSCAL has no word for are properties in
our own namespace. Documents refer to each other by the file names that `auditgap export` suggests.
Source: NIST OSCAL 1.2.1 models, https://pages.nist.gov/OSCAL/.
"""

import re
from collections.abc import Mapping

from auditgap.exchange.export.naming import Json, decided, hex_of, iso, line, shown, tool_version, uuid_of
from auditgap.records import AXES, Access, Assessment, Digest, Requirement
from auditgap.report import Audit
from auditgap.report.words import level

__all__ = [
    "NAMESPACE",
    "access_props",
    "claim_control",
    "control_of",
    "document",
    "file_name",
    "filled",
    "objective",
    "prop",
    "requirement_control",
    "reviewed_controls",
    "subject_component",
    "subject_uuid",
    "token",
]

VERSION = "1.2.1"
NAMESPACE = "https://auditgap.dev/ns/oscal"


def document(audit: Audit, root: str, title: str, body: Mapping[str, Json]) -> dict[str, Json]:
    """A whole OSCAL document under its root name.

    Raises:
        UsageError: no gate has decided on the subject.
    """
    decision, digest = decided(audit)
    metadata = {
        "title": line(title),
        "last-modified": iso(decision.decided_at),
        "version": hex_of(digest)[:16],
        "oscal-version": VERSION,
        "props": [
            prop("subject", audit.subject.digest()),
            prop("decision", digest),
            prop("ledger-root", audit.root),
            prop("written-by", f"auditgap {tool_version()}"),
        ],
        "remarks": "A documentation aid, not legal advice. The signed statements are the evidence; this document is a rendering.",
    }
    return shown({root: {"uuid": uuid_of(root, digest), "metadata": metadata, **body}})


def file_name(model: str) -> str:
    """Where a document refers to another one: `oscal-catalog.json`."""
    return f"oscal-{model}.json"


def filled(name: str, items: list[dict[str, Json]]) -> dict[str, Json]:
    """A list under its name, or nothing: OSCAL has no empty lists."""
    return {name: items} if items else {}


def prop(name: str, value: str) -> dict[str, Json]:
    """A property in our namespace, its value on one line."""
    return {"name": name, "ns": NAMESPACE, "value": line(value)}


def access_props(access: Access, *, prefix: str) -> list[Json]:
    """One property per axis on which more than nothing is asked or had: `required-model`, ..."""
    return [prop(f"{prefix}-{axis}", level(axis, access)) for axis in AXES if access.rank(axis)]


def token(text: str) -> str:
    """Text as an OSCAL token: letters, digits, `.`, `_`, `-`, not beginning with a digit."""
    found = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-") or "unnamed"
    return found if re.match("[A-Za-z_]", found) else f"_{found}"


def requirement_control(requirement: Requirement) -> str:
    """The control id of a requirement: framework and id, since two frameworks may use one id."""
    return token(f"{requirement.framework}_{requirement.id}")


def claim_control(claim: str) -> str:
    """The control id of a claim."""
    return token(f"claim_{claim}")


def control_of(audit: Audit, assessment: Assessment) -> str:
    """The control that an assessment is about: its requirement, or the claim if it stands on its own."""
    if assessment.requirement is None:
        return claim_control(assessment.claim or "unnamed")
    known = audit.requirements.get(assessment.requirement)
    return requirement_control(known) if known else token(assessment.requirement)


def objective(control: str) -> str:
    """The id of a control's assessment objective."""
    return f"{control}_obj"


def reviewed_controls(audit: Audit) -> dict[str, Json]:
    """The controls that were assessed."""
    controls = dict.fromkeys(control_of(audit, a) for _, a in audit.assessments)
    selected: dict[str, Json] = {"include-controls": [{"control-id": control} for control in controls]}
    return {"control-selections": [selected if controls else {"description": "No control was assessed.", "include-all": {}}]}


def subject_component(audit: Audit) -> dict[str, Json]:
    """The model as a component that plans and results refer to."""
    subject = audit.subject
    return {
        "uuid": subject_uuid(subject.digest()),
        "type": "software",
        "title": line(subject.name),
        "description": f"{line(subject.architecture)}, {subject.n_parameters} parameters, {line(subject.dtype)}.",
        "props": [prop("subject", subject.digest()), *([prop("revision", subject.revision)] if subject.revision else [])],
        "status": {"state": "other", "remarks": "A model under audit."},
    }


def subject_uuid(digest: Digest) -> str:
    """The UUID of a subject's component."""
    return uuid_of("component", digest)

"""Catalog, profile and mapping: the rule books, the scope of this audit, and which claim a duty presupposes.

The catalog holds every requirement of the frameworks that were assessed, one control each with the access that checking it needs,
and one control per assessed claim. The profile selects what was assessed. The mapping is the crosswalk, with the duties that
presuppose no checkable claim as unmapped: that is not the same as covered.
"""

from collections.abc import Iterable, Mapping

from auditgap.errors import UsageError
from auditgap.exchange.export.naming import Json, decided, line, uuid_of
from auditgap.exchange.export.oscal.base import (
    access_props,
    claim_control,
    control_of,
    document,
    file_name,
    objective,
    prop,
    requirement_control,
    token,
)
from auditgap.governance import Framework, Row, frameworks
from auditgap.records import Claim, Requirement
from auditgap.report import Audit

__all__ = ["catalog", "mapping", "profile"]

_PURPOSE = "Crosswalk from the duties of a framework to the claims that they presuppose, drafted by reading the text."


def catalog(audit: Audit) -> dict[str, Json]:
    """The requirements and claims of an audit as an OSCAL catalog.

    Raises:
        UsageError: no gate has decided, or nothing was assessed.
    """
    decided(audit)
    assessed = _assessed(audit)
    names = dict.fromkeys((r.framework, r.edition) for r in assessed)
    groups: list[Json] = []
    for framework, edition in names:
        mine = [r for r in audit.requirements.values() if (r.framework, r.edition) == (framework, edition)]
        title = f"{_titles().get(framework, framework)}, {edition}"
        groups.append({"id": token(framework), "title": line(title), "controls": [_requirement(r) for r in mine]})
    if unknown := _unknown(audit):
        controls = [_control(token(name), name, "The catalogue of this audit does not hold its text.", []) for name in unknown]
        groups.append({"id": "not-in-catalogue", "title": "Requirements without a text here", "controls": controls})
    if claims := dict.fromkeys(a.claim for _, a in audit.assessments if a.claim):
        controls = [_claim(name, audit.claims.get(name)) for name in claims]
        groups.append({"id": "claims", "title": "Claims that requirements presuppose", "controls": controls})
    if not groups:
        raise UsageError("nothing was assessed, so there is no catalog: name claims or frameworks in the plan and audit again")
    return document(audit, "catalog", f"Requirements and claims assessed on {audit.subject.name}", {"groups": groups})


def profile(audit: Audit) -> dict[str, Json]:
    """What was assessed, as an OSCAL profile of the catalog.

    Raises:
        UsageError: no gate has decided, or nothing was assessed.
    """
    decided(audit)
    controls = dict.fromkeys(control_of(audit, a) for _, a in audit.assessments)
    controls |= dict.fromkeys(claim_control(a.claim) for _, a in audit.assessments if a.claim)
    if not controls:
        raise UsageError("nothing was assessed, so there is no profile: name claims or frameworks in the plan and audit again")
    imported = {"href": file_name("catalog"), "include-controls": [{"with-ids": list(controls)}]}
    body: dict[str, Json] = {"imports": [imported], "merge": {"as-is": True}}
    return document(audit, "profile", f"Scope of the audit of {audit.subject.name}", body)


def mapping(audit: Audit, known: Mapping[str, Framework] | None = None) -> dict[str, Json]:
    """The crosswalk rows of the assessed frameworks as an OSCAL mapping collection.

    Args:
        audit: names the frameworks.
        known: frameworks with their crosswalks, by id; the shipped ones if not given.

    Raises:
        UsageError: no gate has decided, or no crosswalk belongs to what was assessed.
    """
    decided(audit)
    known = frameworks() if known is None else known
    used = [known[name] for name in dict.fromkeys(r.framework for r in _assessed(audit)) if name in known]
    mappings = [found for framework in used if (found := _mapping(framework))]
    if not mappings:
        raise UsageError("no crosswalk to export: expected an assessed framework with claims; add one to the plan's frameworks")
    reviewed = all(row.status == "reviewed" for framework in used for row in framework.rows)
    provenance = {
        "method": "human",
        "matching-rationale": "semantic",
        "status": "complete" if reviewed else "draft",
        "mapping-description": _PURPOSE,
    }
    title = f"Crosswalks used in the audit of {audit.subject.name}"
    return document(audit, "mapping-collection", title, {"provenance": provenance, "mappings": mappings})


def _mapping(framework: Framework) -> dict[str, Json] | None:
    pairs = list(zip(framework.requirements, framework.rows, strict=True))
    maps: list[Json] = [_map(framework, r, row, claim) for r, row in pairs for claim in row.claims]
    if not maps:
        return None
    resource = {"type": "catalog", "href": file_name("catalog")}
    name = f"{framework.id}@{framework.edition}"
    found: dict[str, Json] = {
        "uuid": uuid_of("mapping", name),
        "mapping-description": _PURPOSE,
        "source-resource": resource,
        "target-resource": resource,
        "maps": maps,
        "props": [prop("framework", framework.id), prop("edition", framework.edition)],
    }
    if unmapped := [requirement_control(r) for r, row in pairs if not row.claims]:
        gap: Json = {"uuid": uuid_of("unmapped", name), "unmapped-controls": [{"with-ids": unmapped}]}
        found["source-gap-summary"] = gap
    return found


def _map(framework: Framework, requirement: Requirement, row: Row, claim: str) -> dict[str, Json]:
    control = requirement_control(requirement)
    coverage = [prop("coverage", row.coverage)] if row.coverage else []
    return {
        "uuid": uuid_of("map", framework.id, framework.edition, requirement.id, claim),
        "relationship": row.relationship or "no-relationship",
        "matching-rationale": row.rationale,
        "sources": [{"type": "control", "id-ref": control}],
        "targets": [{"type": "control", "id-ref": claim_control(claim)}],
        **({"confidence-score": {"category": row.confidence}} if row.confidence else {}),
        "props": [prop("status", row.status), *coverage],
        **({"remarks": row.note} if row.note else {}),
    }


def _assessed(audit: Audit) -> list[Requirement]:
    found = (audit.requirements.get(a.requirement) for _, a in audit.assessments if a.requirement)
    return list({requirement.id: requirement for requirement in found if requirement}.values())


def _unknown(audit: Audit) -> list[str]:
    named = dict.fromkeys(a.requirement for _, a in audit.assessments if a.requirement)
    return [name for name in named if name not in audit.requirements]


def _titles() -> dict[str, str]:
    return {framework.id: framework.title for framework in frameworks().values()}


def _requirement(r: Requirement) -> dict[str, Json]:
    presupposed = ", ".join(r.claims) or "none that could be checked technically; that is not the same as covered"
    props: list[Json] = [prop("label", r.text_ref), prop("source-read", r.verified), prop("crosswalk-status", r.status)]
    props += [prop(name, f"{day}") for name, day in (("from", r.effective_from), ("to", r.effective_to)) if day]
    props += access_props(r.required, prefix="required")
    props += [prop(f"pin-{axis}", f"{pin.source}, {pin.paragraph} ({pin.reading})") for axis, pin in r.pins.items()]
    prose = f"{r.title} ({r.text_ref}). A paraphrase; the source holds the text. Presupposes claims: {presupposed}."
    return _control(requirement_control(r), r.title, prose, props)


def _claim(name: str, claim: Claim | None) -> dict[str, Json]:
    if claim is None:
        return _control(claim_control(name), name, "The catalogue of this audit does not hold its text.", [])
    props: Iterable[Json] = (
        prop("modality", claim.modality),
        prop("realm", claim.realm),
        prop("scope", claim.scope),
        *access_props(claim.required, prefix="required"),
    )
    return _control(claim_control(name), claim.statement, claim.statement, props)


def _control(control: str, title: str, prose: str, props: Iterable[Json]) -> dict[str, Json]:
    listed = list(props)
    checked = f"Hold the evidence against the access and the claims that {line(title)} presupposes."
    return {
        "id": control,
        "title": line(title),
        **({"props": listed} if listed else {}),
        "parts": [
            {"id": f"{control}_smt", "name": "statement", "prose": prose},
            {"id": objective(control), "name": "assessment-objective", "prose": checked},
        ],
    }

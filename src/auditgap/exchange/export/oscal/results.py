"""Assessment results: an observation is a piece of evidence, a finding is one assessment, a risk is a weakness of one.

A finding is `satisfied` only if the evidence carries the whole claim with no gap and nothing fragile; graded states are
properties. The lines of the gate's decision are attestation parts of the result.
"""

import datetime as dt

from auditgap.exchange.export.naming import Json, decided, iso, line, uri, uuid_of
from auditgap.exchange.export.open_points import name_of
from auditgap.exchange.export.oscal.base import (
    access_props,
    control_of,
    document,
    file_name,
    filled,
    objective,
    prop,
    reviewed_controls,
    subject_component,
    subject_uuid,
)
from auditgap.exchange.export.oscal.risks import risk_entry, risks, risks_of
from auditgap.exchange.export.standing import carried, standing
from auditgap.records import Assessment, Digest, Evidence, Measured
from auditgap.report import Audit
from auditgap.report.words import SUPPORT, TIER

__all__ = ["assessment_results"]


def assessment_results(audit: Audit) -> dict[str, Json]:
    """Evidence, assessments and weaknesses of an audit as OSCAL assessment results.

    Raises:
        UsageError: no gate has decided on the subject.
    """
    decision, digest = decided(audit)
    start = min((e.started_at for _, e in audit.evidence), default=decision.decided_at)
    lines: list[Json] = [
        {
            "name": "criterion",
            "title": line(c.id),
            "props": [prop("status", c.status), prop("severity", c.severity), prop("standing", standing(c))],
            "prose": f"{line(c.reason)} Response: {line(c.response)}",
        }
        for c in decision.criteria
    ]
    result: dict[str, Json] = {
        "uuid": uuid_of("result", digest),
        "title": line(f"Gate decision on {audit.subject.name}: {decision.outcome}"),
        "description": " ".join(line(reason) for reason in decision.reasons) or "No reason is stated.",
        "start": iso(start),
        "end": iso(decision.decided_at),
        "props": [
            prop("outcome", decision.outcome),
            prop("policy", decision.policy),
            *(prop("disclosed", gap) for gap in decision.disclosed),
        ],
        "local-definitions": {"components": [subject_component(audit)]},
        "reviewed-controls": reviewed_controls(audit),
    }
    if lines:
        result["attestations"] = [{"parts": lines}]
    result |= filled("observations", [_observation(audit, d, e) for d, e in audit.evidence])
    result |= filled("risks", [risk_entry(risk) for risk in risks(audit)])
    result |= filled("findings", [_finding(audit, d, a) for d, a in audit.assessments])
    body: dict[str, Json] = {"import-ap": {"href": file_name("assessment-plan")}, "results": [result]}
    return document(audit, "assessment-results", f"Audit of {audit.subject.name}", body)


def _observation(audit: Audit, digest: Digest, e: Evidence) -> dict[str, Json]:
    measured = [m for m in e.result.measurements if isinstance(m, Measured)]
    missing = [m for m in e.result.measurements if not isinstance(m, Measured)]
    numbers = "; ".join(f"{m.name} = {m.value!r} {m.unit} [{m.interval.low!r}, {m.interval.high!r}], n = {m.n}" for m in measured)
    expires = dt.datetime.combine(e.expires, dt.time(23, 59, 59), dt.UTC)
    return {
        "uuid": uuid_of("observation", digest),
        "title": line(f"{e.step}: {e.instrument} {e.version}"),
        "description": line(e.result.summary),
        "props": [
            prop("verdict", e.result.verdict),
            prop("registration", e.registration),
            prop("specification", e.spec),
            *(prop("not-measured", f"{m.name}: {m.reason}") for m in missing),
            *(prop("control-passed" if c.passed else "control-failed", c.name) for c in e.result.controls),
            *(prop("does-not-show", text) for text in e.non_claims),
            *access_props(e.granted, prefix="granted"),
        ],
        "methods": ["TEST"],
        "subjects": [{"subject-uuid": subject_uuid(audit.subject.digest()), "type": "component"}],
        "relevant-evidence": [{"href": uri("statement", digest), "description": line(numbers or "Nothing was measured.")}],
        "collected": iso(e.finished_at),
        "expires": iso(expires),
    }


def _finding(audit: Audit, digest: Digest, a: Assessment) -> dict[str, Json]:
    control = control_of(audit, a)
    kept = {known for known, _ in audit.evidence}
    reason = "pass" if carried(audit, a) else "fail" if a.support == "defeated" else "other"
    status = {
        "state": "satisfied" if carried(audit, a) else "not-satisfied",
        "reason": reason,
        "remarks": SUPPORT[a.support].meaning,
    }
    observations: list[dict[str, Json]] = [
        {"observation-uuid": uuid_of("observation", known)} for known in a.evidence if known in kept
    ]
    risks: list[dict[str, Json]] = [{"risk-uuid": risk.uuid} for risk in risks_of(audit, digest, a)]
    return {
        "uuid": uuid_of("finding", digest),
        "title": line(f"{name_of(a)}: {SUPPORT[a.support].label}"),
        "description": f"{SUPPORT[a.support].meaning} Tier {a.tier} of 5 ({TIER[a.tier].label}). Power: {line(a.power)}",
        "props": [
            prop("support", a.support),
            prop("tier", str(a.tier)),
            prop("assessment", digest),
            *([prop("claim", a.claim)] if a.claim else []),
            *(prop(f"execution-gap-{gap.axis}", str(gap.execution)) for gap in a.gaps if gap.execution),
            *(prop(f"structural-gap-{gap.axis}", str(gap.structural)) for gap in a.gaps if gap.structural),
        ],
        "target": {"type": "objective-id", "target-id": objective(control), "status": status},
        **filled("related-observations", observations),
        **filled("related-risks", risks),
    }

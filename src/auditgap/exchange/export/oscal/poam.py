"""Plan of action: what the team can close. Lines of the decision that did not pass, execution gaps, and fragile reasons.

What nobody can close today, a structural gap, is no action: it is a risk in the assessment results.
"""

from auditgap.errors import UsageError
from auditgap.exchange.export.naming import Json, decided, line, uri, uuid_of
from auditgap.exchange.export.open_points import GapPoint, gap_points
from auditgap.exchange.export.oscal.base import document, filled, prop
from auditgap.exchange.export.oscal.risks import Risk, risk_entry, risks
from auditgap.exchange.export.standing import standing
from auditgap.records import Digest
from auditgap.report import Audit
from auditgap.report.words import AXIS

__all__ = ["poam"]


def poam(audit: Audit) -> dict[str, Json]:
    """What is left to do, as an OSCAL plan of action and milestones.

    Raises:
        UsageError: no gate has decided, or nothing is open.
    """
    decision, digest = decided(audit)
    items: list[Json] = [
        {
            "uuid": uuid_of("item", digest, c.id),
            "title": line(c.id),
            "description": line(c.reason),
            "props": [prop("status", c.status), prop("severity", c.severity), prop("standing", standing(c))],
            "remarks": f"Response, written before the run: {line(c.response)}",
        }
        for c in decision.criteria
        if standing(c) != "passed"
    ]
    items += [_to_close(digest, point) for point in gap_points(audit) if point.kind == "execution"]
    weak = [risk for risk in risks(audit) if not risk.code.startswith("structural-gap")]
    points = dict.fromkeys((risk.code, risk.claim) for risk in weak)
    items += [_weakness([risk for risk in weak if (risk.code, risk.claim) == point]) for point in points]
    if not items:
        raise UsageError("nothing is open on this subject, so there is no plan of action to export")
    body: dict[str, Json] = {"system-id": {"identifier-type": uri("ns", "subject-digest"), "id": audit.subject.digest()}}
    body |= filled("risks", [risk_entry(risk) for risk in weak]) | {"poam-items": items}
    return document(audit, "plan-of-action-and-milestones", f"Open points of {audit.subject.name}", body)


def _weakness(same: list[Risk]) -> dict[str, Json]:
    """One reason on one claim; accepted only if it is wherever the claim was assessed."""
    first = same[0]
    accepted = first.accepted if first.accepted and all(risk.accepted for risk in same) else None
    return {
        "uuid": uuid_of("item", *(risk.uuid for risk in same)),
        "title": line(f"{first.code} on {first.claim or 'a requirement'}"),
        "description": line(f"{first.title} {'; '.join(dict.fromkeys(risk.statement for risk in same))}"),
        "related-risks": [{"risk-uuid": risk.uuid} for risk in same],
        "remarks": line(accepted or "Open."),
    }


def _to_close(decision: Digest, point: GapPoint) -> dict[str, Json]:
    return {
        "uuid": uuid_of("item", decision, f"execution-gap-{point.axis}"),
        "title": line(f"Execution gap: {AXIS[point.axis]}"),
        "description": line(point.said()),
        "props": [prop("widest-gap-in", point.digest), prop("steps", str(point.n_steps))],
    }

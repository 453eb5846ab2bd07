"""TEA runtime evidence items, format 0.1: one JSON line per criterion that holds a number against a bar.

PASS: the bar is cleared. FAIL: it is missed by the whole interval. DEGRADED: inconclusive, missing or not measured. `value` is
there only if there is a number, `threshold` only if one bar was registered. `claimId` is a version 5 UUID of subject and claim;
the platform wants the id of its own element there, so map it by `provenance.claim`.
Source: Trustworthy and Ethical Assurance platform, docs/specs/evidence-format-v0.1.md, frozen 2026-07-03.
"""

import json

from auditgap.exchange.export.naming import TOOL, Json, decided, iso, line, shown, tool_version, uuid_of
from auditgap.exchange.export.standing import is_bar, standing
from auditgap.records import CriterionResult, Measured
from auditgap.report import Audit, outline

__all__ = ["tea"]


def tea(audit: Audit) -> str:
    """The items, one JSON object a line.

    Raises:
        UsageError: no gate has decided on the subject.
    """
    decision, digest = decided(audit)
    items = [_item(audit, c, digest, iso(decision.decided_at)) for c in decision.criteria if is_bar(c)]
    return "".join(f"{json.dumps(shown(item), ensure_ascii=False)}\n" for item in items)


def _item(audit: Audit, c: CriterionResult, decision: str, decided_at: str) -> dict[str, Json]:
    evidence = next((e for digest, e in audit.evidence if digest == c.evidence), None)
    bars = {bar.value for bar in outline.thresholds_of(audit, c)}
    number: dict[str, Json] = {"value": c.measurement.value} if isinstance(c.measurement, Measured) else {}
    if len(bars) == 1:
        number["threshold"] = bars.pop()
    passed = standing(c) == "passed"
    provenance: dict[str, Json] = {
        "check": f"{evidence.instrument}/{c.id}" if evidence else c.id,
        "checkVersion": evidence.version if evidence else tool_version(),
        "runId": c.evidence or decision,
        "claim": c.claim,
        "subject": audit.subject.digest(),
        "status": c.status,
        "reason": c.reason,
    }
    return {
        "formatVersion": "0.1",
        "claimId": uuid_of("claim", audit.subject.digest(), c.claim),
        "metricName": line(c.measurement.name if c.measurement else c.id)[:200],
        **number,
        "verdict": "PASS" if passed else "FAIL" if c.status == "not-met" else "DEGRADED",
        "oddDimensions": [],
        "sourceSystem": TOOL,
        "provenance": provenance,
        "evaluatedAt": iso(evidence.finished_at) if evidence else decided_at,
    }

"""What one line of a decision may be exported as. Other formats know passed and failed; here nothing passes by absence.

1. A line passes only if it is met, and a bar only if a number was compared with it.
2. What is not met, inconclusive or missing and blocks has failed or is undecided: neither is a pass in any format.
3. What does not block (`note`) is noted: shown as a warning or skipped, never passed.
"""

from typing import Literal

from auditgap.records import Assessment, CriterionResult, Decision, Evidence, Measured
from auditgap.report import Audit

__all__ = ["Standing", "carried", "is_bar", "released", "relied_on", "standing"]

Standing = Literal["passed", "failed", "undecided", "noted"]


def is_bar(criterion: CriterionResult) -> bool:
    """True for a criterion that holds a number against a bar; false for the gate's own lines, such as `claim:ID`."""
    return ":" not in criterion.id


def standing(criterion: CriterionResult) -> Standing:
    """Where a line stands; a bar that is called met without a number is undecided."""
    unmeasured = not isinstance(criterion.measurement, Measured) and (is_bar(criterion) or criterion.measurement is not None)
    if criterion.status == "met" and not unmeasured:
        return "passed"
    if criterion.severity == "note":
        return "noted"
    return "failed" if criterion.status == "not-met" else "undecided"


def released(decision: Decision) -> bool:
    """True if the decision passes and every line agrees; a decision without lines passes nothing."""
    passes = decision.outcome in ("pass", "pass-with-disclosed-gap")
    return passes and bool(decision.criteria) and all(standing(c) in ("passed", "noted") for c in decision.criteria)


def carried(audit: Audit, assessment: Assessment) -> bool:
    """True if the evidence carries the whole claim with nothing open: supported, no gap, not fragile, every piece measured."""
    open_ = any(gap.structural + gap.execution for gap in assessment.gaps) or assessment.fragile
    kept = {digest: e for digest, e in audit.evidence if relied_on(audit, e)}
    cited = [kept[digest].result.measurements for digest in assessment.evidence if digest in kept]
    measured = [measurements for measurements in cited if any(isinstance(m, Measured) for m in measurements)]
    return assessment.support == "supported" and not open_ and 0 < len(measured) == len(assessment.evidence)


def relied_on(audit: Audit, evidence: Evidence) -> bool:
    """True if numbers of this evidence may be shown as the subject's: its controls passed, and it is about this subject."""
    return evidence.result.verdict != "invalid" and evidence.subject.digest() == audit.subject.digest()

"""Records as rows of text."""

from collections.abc import Sequence

import click

from auditgap.cli.options import table
from auditgap.governance import NextStep
from auditgap.judge import Outcome
from auditgap.records import Assessment, Control, CriterionResult, Decision, Measurement

__all__ = [
    "assessment_row",
    "control_row",
    "criterion_row",
    "decision_lines",
    "measurement_row",
    "next_step_rows",
    "print_outcome",
    "short",
]


def measurement_row(measurement: Measurement) -> tuple[str, str, str, str, str]:
    """name, value, interval, n, unit; a missing number gives its reason."""
    if measurement.status == "not_measured":
        return measurement.name, "not measured", measurement.reason, "", ""
    low, high = measurement.interval.low, measurement.interval.high
    return measurement.name, f"{measurement.value:.4g}", f"{low:.4g} .. {high:.4g}", str(measurement.n), measurement.unit


def control_row(control: Control) -> tuple[str, str, str, str]:
    """control, passed, observed, expected."""
    observed = control.observed
    value = observed.reason if observed.status == "not_measured" else f"{observed.value:.4g} {observed.unit}"
    return control.name, "yes" if control.passed else "NO", value, control.expected


def criterion_row(criterion: CriterionResult) -> tuple[str, str, str, str]:
    """id, status, severity, reason."""
    return criterion.id, criterion.status, criterion.severity, criterion.reason


def assessment_row(assessment: Assessment) -> tuple[str, str, str, str, str, str]:
    """requirement or claim, support, tier, structural gaps, execution gaps, fragile codes."""
    structural = ", ".join(f"{g.axis} {g.structural}" for g in assessment.gaps if g.structural)
    execution = ", ".join(f"{g.axis} {g.execution}" for g in assessment.gaps if g.execution)
    name = " / ".join(part for part in (assessment.requirement, assessment.claim) if part)
    fragile = ", ".join(reason.code for reason in assessment.fragile)
    return name, assessment.support, str(assessment.tier), structural or "none", execution or "none", fragile or "none"


def next_step_rows(assessments: Sequence[Assessment], steps: Sequence[tuple[NextStep, ...]]) -> list[tuple[bool, str, str]]:
    """closable, sentence, the duties or claims that it serves; the step that serves most first."""
    served: dict[tuple[bool, str], list[str]] = {}
    for assessment, found in zip(assessments, steps, strict=True):
        for step in found:
            name = assessment.requirement or assessment.claim or ""
            served.setdefault((step.closable, step.sentence), []).append(name)
    ranked = sorted(served.items(), key=lambda item: -len(item[1]))
    return [(closable, sentence, ", ".join(dict.fromkeys(names))) for (closable, sentence), names in ranked]


def decision_lines(decision: Decision) -> list[str]:
    """The decision as a person reads it: outcome, every reason, every response that is now due, what is disclosed."""
    blocking = [c for c in decision.criteria if c.status != "met" and c.severity != "note"]
    lines = [f"decision: {decision.outcome.upper()}"]
    lines += [f"  because {c.id}: {c.reason}" for c in blocking] or [f"  because {reason}" for reason in decision.reasons]
    lines += [f"  now     {response}" for response in dict.fromkeys(c.response for c in blocking)]
    return lines + [f"  open    {gap}" for gap in decision.disclosed]


def short(digest: str) -> str:
    """The first twelve hex digits: enough to find a record with `auditgap evidence show`."""
    return digest.removeprefix("sha256:")[:12]


def print_outcome(outcome: Outcome) -> None:
    """An audit's outcome on stdout: evidence, criteria, gaps, then the decision."""
    name = outcome.subject.name
    rows = [(e.step, e.instrument, e.result.verdict, e.result.summary, short(d)) for d, e in outcome.evidence]
    table(f"evidence on {name}", ("step", "instrument", "verdict", "summary", "digest"), rows)
    table("criteria", ("criterion", "status", "severity", "reason"), [criterion_row(c) for c in outcome.decision.criteria])
    claims = [a for _, a in outcome.assessments if a.requirement is None]
    table(
        "claims", ("claim", "support", "tier", "structural gap", "execution gap", "fragile"), [assessment_row(a) for a in claims]
    )
    click.echo("\n".join(decision_lines(outcome.decision)))

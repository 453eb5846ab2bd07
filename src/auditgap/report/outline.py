"""How an audit is arranged for reading, in HTML and in Markdown: what belongs together, is missing, or weakens a number."""

from typing import NamedTuple

from auditgap.records import Assessment, Claim, CriterionResult, Digest, Evidence, Registration, Requirement, Threshold
from auditgap.report.audit import Audit

__all__ = [
    "ClaimRow",
    "FrameworkRows",
    "NotKept",
    "RequirementRow",
    "Why",
    "bars",
    "checks",
    "claim_anchor",
    "claim_rows",
    "compared",
    "framework_rows",
    "label_of",
    "non_claims",
    "not_measured",
    "points",
    "reasons",
    "registration_of",
    "responses",
    "thresholds_of",
    "warnings_about",
    "warnings_about_decision",
]


class ClaimRow(NamedTuple):
    """One claim, and what was concluded about it."""

    id: str
    claim: Claim | None
    """None if the catalogue that was handed over does not hold it."""
    digest: Digest | None
    assessment: Assessment | None
    """None if a criterion names the claim and nothing assessed it."""


class RequirementRow(NamedTuple):
    """One requirement as it was assessed for one of its claims."""

    id: str
    requirement: Requirement | None
    digest: Digest
    assessment: Assessment


class FrameworkRows(NamedTuple):
    """The assessed requirements of one edition of one framework."""

    name: str
    edition: str
    rows: list[RequirementRow]


class Why(NamedTuple):
    """One reason of the gate."""

    criterion: str | None
    """Id of the line that it is about; None if it is about all of them."""
    points: list[str]


class NotKept(NamedTuple):
    """One quantity without a number."""

    evidence: str
    """Label of the evidence, e.g. `E2`."""
    name: str
    reason: str


def label_of(audit: Audit, digest: Digest | None) -> str | None:
    """`E3` for the third piece of evidence, or None if the report does not hold it."""
    return next((f"E{i}" for i, (known, _) in enumerate(audit.evidence, 1) if known == digest), None)


def registration_of(audit: Audit, evidence: Evidence) -> Registration | None:
    """The registration that came before this evidence, or None if the report does not hold it."""
    return audit.registrations.get(evidence.registration)


def thresholds_of(audit: Audit, criterion: CriterionResult) -> list[Threshold]:
    """The registered bars on the measurement that a criterion looked at; empty if none was registered."""
    evidence = next((e for digest, e in audit.evidence if digest == criterion.evidence), None)
    registration = registration_of(audit, evidence) if evidence else None
    if registration is None or criterion.measurement is None:
        return []
    return [t for t in registration.thresholds if t.measurement == criterion.measurement.name]


def compared(threshold: Threshold, criterion: CriterionResult) -> float | None:
    """The end of the interval that a bar is held against, or None where there is no number."""
    if criterion.measurement is None or criterion.measurement.status == "not_measured":
        return None
    interval = criterion.measurement.interval
    return interval.low if threshold.bound == "low" else interval.high


def bars(audit: Audit) -> list[CriterionResult]:
    """The criteria that hold one number against one bar."""
    return [c for c in audit.decision.criteria if ":" not in c.id] if audit.decision else []


def checks(audit: Audit) -> list[CriterionResult]:
    """The gate's own lines, on claims and on the policy: ids such as `claim:refuses-harmful`, which no criterion can have."""
    return [c for c in audit.decision.criteria if ":" in c.id] if audit.decision else []


def points(reason: str) -> list[str]:
    """A reason as the separate points that the gate joined into it."""
    return reason.split("; ")


def reasons(audit: Audit) -> list[Why]:
    """Why the gate decided so: its own words, each response left out here because `responses` prints it once."""
    return [_why(audit, reason) for reason in audit.decision.reasons] if audit.decision else []


def _why(audit: Audit, reason: str) -> Why:
    for c in audit.decision.criteria if audit.decision else ():
        if reason.startswith(f"{c.id}: "):
            said = reason.removeprefix(f"{c.id}: ").removesuffix(f" Response: {c.response}")
            return Why(c.id, points(said) if ":" in c.id else [said])
    return Why(None, [reason])


def responses(audit: Audit) -> list[tuple[str, list[CriterionResult]]]:
    """What was promised before the run, with the criteria, not met whatever their severity, that call for it."""
    found: dict[str, list[CriterionResult]] = {}
    for c in audit.decision.criteria if audit.decision else ():
        if c.status != "met":
            found.setdefault(c.response, []).append(c)
    return list(found.items())


def claim_rows(audit: Audit) -> list[ClaimRow]:
    """Every claim that was assessed on its own, then those that a criterion names and nothing assessed."""
    rows = [
        ClaimRow(a.claim, audit.claims.get(a.claim), digest, a)
        for digest, a in audit.assessments
        if a.requirement is None and a.claim is not None
    ]
    assessed = {a.claim for _, a in audit.assessments}
    named = dict.fromkeys(c.claim for c in (audit.decision.criteria if audit.decision else ()))
    return rows + [ClaimRow(name, audit.claims.get(name), None, None) for name in named if name not in assessed]


def claim_anchor(audit: Audit, claim: str) -> str:
    """The id of a claim's part of the page; of the whole section if the claim was only assessed within requirements."""
    return f"claim-{claim}" if any(row.id == claim for row in claim_rows(audit)) else "claims"


def framework_rows(audit: Audit) -> list[FrameworkRows]:
    """Assessed requirements by framework and edition, in the order in which they were assessed."""
    groups: dict[tuple[str, str], list[RequirementRow]] = {}
    for digest, assessment in audit.assessments:
        if assessment.requirement is None:
            continue
        requirement = audit.requirements.get(assessment.requirement)
        key = (requirement.framework, requirement.edition) if requirement else ("Not in the catalogue of this report", "")
        groups.setdefault(key, []).append(RequirementRow(assessment.requirement, requirement, digest, assessment))
    return [FrameworkRows(name, edition, rows) for (name, edition), rows in groups.items()]


def warnings_about(audit: Audit, evidence: Evidence) -> list[str]:
    """What a reader must know before any number of this evidence: each one takes away from its weight."""
    registration = registration_of(audit, evidence)
    found = []
    if evidence.result.verdict == "invalid":
        found.append("Invalid: a control that this instrument owes did not pass, so its numbers may not be relied on.")
    if evidence.subject.digest() != audit.subject.digest():
        found.append("Measured on another subject than this report is about: the subject digests differ.")
    if registration is None:
        found.append("Its registration is not in this report, so nothing here shows that thresholds came before the numbers.")
    elif evidence.imported is not None:
        found.append("Imported from another tool's log: nothing was registered before these results existed.")
    elif registration.registered_at > evidence.started_at:
        found.append("Registered after the run had started: thresholds may have been chosen with the numbers in sight.")
    if evidence.expires < audit.generated_at.date():
        found.append(f"Expired on {evidence.expires:%Y-%m-%d}, before this report was written.")
    return found


def warnings_about_decision(audit: Audit) -> list[str]:
    """What a reader must know before relying on the decision."""
    if audit.decision and audit.decision.subject != audit.subject.digest():
        return ["This decision was taken about another subject than the one shown: the subject digests differ."]
    return []


def not_measured(audit: Audit) -> list[NotKept]:
    """Every quantity that was to be measured and was not, with the reason."""
    return [
        NotKept(f"E{i}", m.name, m.reason)
        for i, (_, evidence) in enumerate(audit.evidence, 1)
        for m in evidence.result.measurements
        if m.status == "not_measured"
    ]


def non_claims(audit: Audit) -> dict[str, tuple[str, ...]]:
    """What the evidence does not show, by instrument: the blind spots each one declares."""
    found: dict[str, dict[str, None]] = {}
    for _, evidence in audit.evidence:
        found.setdefault(evidence.instrument, {}).update(dict.fromkeys(evidence.non_claims))
    return {instrument: tuple(spots) for instrument, spots in found.items()}

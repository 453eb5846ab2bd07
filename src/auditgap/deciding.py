"""Evidence and a policy become a decision: default deny, and every reason in the open.

1. Each criterion names one measurement of one instrument, the end of its interval that is compared, and the bar. It is met only
   by valid, fresh evidence on the right subject, whose registration held the same bar before the run.
2. Each gating claim must be free of execution gaps and fragility, or the policy accepts the reason by name until a date.
3. A measured breach or a defeated claim fails. What is missing, undecided or not accepted holds. What passes with a structural
   gap or an accepted reason says so.

Every check leaves one line in `Decision.criteria`: a criterion's under its own id, a claim's under `claim:<id>`.
"""

import datetime as dt
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

from auditgap.governance import Judged, problems
from auditgap.policy import Criterion, Policy, Severity
from auditgap.records import (
    Assessment,
    Comparator,
    CriterionResult,
    Date,
    Decision,
    Digest,
    Measured,
    Measurement,
    NotMeasured,
    Outcome,
)

__all__ = ["decide", "exit_code"]

Status = Literal["met", "not-met", "inconclusive", "missing"]

_COMPARE: dict[Comparator, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


class _Reading(NamedTuple):
    """What one piece of evidence, or none, says about one criterion."""

    status: Status
    reason: str
    measurement: Measurement | None = None
    evidence: Digest | None = None


def decide(
    policy: Policy,
    evidence: Sequence[Judged],
    assessments: Sequence[tuple[Digest, Assessment]],
    *,
    subject: Digest,
    now: dt.datetime,
) -> Decision:
    """Hold evidence and assessments of one subject against a policy; their order is irrelevant."""
    distinct = [j for _, j in sorted({j.digest: j for j in evidence}.items())]
    assessed = _of(subject, assessments)
    results, disclosed = [], []
    if policy.subject not in (None, subject):
        reason = f"The policy is for subject {policy.subject}, asked was {subject}."
        results.append(_result("policy:subject", "", "hold", _Reading("inconclusive", reason), "Use the policy of this subject."))
    for criterion in policy.criteria:
        reading = _read(criterion, distinct, policy.max_age_days, subject, now)
        severity = criterion.severity
        if severity != "note" and reading.status in ("missing", "inconclusive"):
            severity = criterion.on_missing if reading.status == "missing" else "hold"
        results.append(_result(criterion.id, criterion.claim, severity, reading, criterion.response))
        if severity == "note" and reading.status != "met":
            disclosed.append(f"{criterion.id}: {reading.reason}")
    for claim in policy.gating():
        gating = [a for _, a in assessed if a.claim == claim and a.requirement in (None, *policy.gating_requirements)]
        result, open_points = _gate_claim(claim, gating, policy, now.date())
        results.append(result)
        disclosed += open_points
    blocking = [r for r in results if r.severity != "note" and r.status != "met"]
    outcome: Outcome = "pass-with-disclosed-gap" if disclosed else "pass"
    if blocking:
        outcome = "fail" if any(r.severity == "fail" for r in blocking) else "hold"
    met = f"All {len(policy.criteria)} criteria and {len(policy.gating())} gating claims of '{policy.name}' are met."
    return Decision(
        subject=subject,
        policy=policy.digest(),
        outcome=outcome,
        reasons=tuple(f"{r.id}: {r.reason} Response: {r.response}" for r in blocking) or (met,),
        criteria=tuple(results),
        disclosed=tuple(dict.fromkeys(disclosed)),
        assessments=tuple(digest for digest, _ in assessed),
        decided_at=now,
    )


def exit_code(decision: Decision) -> int:
    """0 passes; 1 is blocked by something measured; 3 is blocked only by what is missing or inconclusive."""
    if decision.outcome in ("pass", "pass-with-disclosed-gap"):
        return 0
    blocking = [r for r in decision.criteria if r.severity != "note" and r.status != "met"]
    return 3 if all(r.status in ("missing", "inconclusive") for r in blocking) else 1


def _of(subject: Digest, assessments: Sequence[tuple[Digest, Assessment]]) -> list[tuple[Digest, Assessment]]:
    """The assessments of one subject, once each, in the order of their digests."""
    return sorted({digest: a for digest, a in assessments if a.subject == subject}.items(), key=lambda pair: pair[0])


def _result(name: str, claim: str, severity: Severity, reading: _Reading, response: str) -> CriterionResult:
    status, reason, measurement, evidence = reading
    return CriterionResult(
        id=name,
        claim=claim,
        status=status,
        severity=severity,
        reason=reason,
        response=response,
        measurement=measurement,
        evidence=evidence,
    )


# Criteria


def _read(
    criterion: Criterion, evidence: Sequence[Judged], max_age_days: int | None, subject: Digest, now: dt.datetime
) -> _Reading:
    """The one reading of a criterion: that of the least favourable evidence, if all usable evidence agrees."""
    if criterion.review_by < now.date():
        return _Reading("inconclusive", f"The criterion was to be reviewed by {criterion.review_by}; review the policy.")
    source = f"'{criterion.instrument}'" + (f" in step '{criterion.step}'" if criterion.step else "")
    named = [j for j in evidence if j.evidence.instrument == criterion.instrument and criterion.step in (None, j.evidence.step)]
    refused = [f"step '{j.evidence.step}': {why}" for j in named if (why := _unusable(j, max_age_days, subject, now))]
    usable = [j for j in named if not _unusable(j, max_age_days, subject, now)]
    if not usable:
        why = "; ".join(refused) if refused else "the store holds none"
        return _Reading("missing", f"There is no usable evidence from {source} for {criterion.measurement}: {why}.")
    registered = [j for j in usable if criterion.registered_in(j)]
    if not registered:
        bar = f"{criterion.measurement} {criterion.comparator} {criterion.threshold:g} ({criterion.bound} end)"
        return _Reading("inconclusive", f"Not registered: no run of {source} had the bar {bar} signed before it began.")
    readings = [_compare(criterion, j) for j in registered]
    if len({reading.status for reading in readings}) > 1:
        listed = " ".join(sorted(reading.reason for reading in readings))
        return _Reading("inconclusive", f"The evidence conflicts; name the step that counts. {listed}")
    return max(readings, key=lambda reading: (_margin(criterion, reading), reading.evidence or ""))


def _unusable(judged: Judged, max_age_days: int | None, subject: Digest, now: dt.datetime) -> str | None:
    """Why this evidence does not count, or None."""
    evidence = judged.evidence
    if evidence.subject.digest() != subject:
        return "it is about another subject"
    if found := problems(judged):
        return ", ".join(found)
    if evidence.expires < now.date():
        return f"it expired on {evidence.expires}"
    if evidence.finished_at > now:
        return f"it is dated {evidence.finished_at:%Y-%m-%d %H:%M}, after the decision"
    age = now - evidence.finished_at
    if max_age_days is not None and age > dt.timedelta(days=max_age_days):
        return f"it is stale: {age.days} days old, the policy allows {max_age_days}"
    return None


def _compare(criterion: Criterion, judged: Judged) -> _Reading:
    """The named end of the interval against the bar."""
    found = judged.evidence.result.measurement(criterion.measurement)
    where = f"step '{judged.evidence.step}'"
    if found is None:
        known = ", ".join(m.name for m in judged.evidence.result.measurements)
        return _Reading("missing", f"{criterion.measurement} is not among the results of {where} ({known}).", None, judged.digest)
    if isinstance(found, NotMeasured):
        return _Reading("missing", f"{found.name} was not measured in {where}: {found.reason}.", found, judged.digest)
    clears = _COMPARE[criterion.comparator]
    compared, other = found.interval.high, found.interval.low
    if criterion.bound == "low":
        compared, other = other, compared
    said = (
        f"{found.name} is {found.value:.6g} in [{found.interval.low:.6g}, {found.interval.high:.6g}] "
        f"({found.interval.level:.0%}, {found.interval.method}, n = {found.n}); "
        f"its {criterion.bound} end must be {criterion.comparator} {criterion.threshold:g}"
    )
    if found.n < criterion.min_n:
        return _Reading("inconclusive", f"{said}, on at least {criterion.min_n} independent units.", found, judged.digest)
    if clears(compared, criterion.threshold):
        return _Reading("met", f"{said}: it is.", found, judged.digest)
    if clears(other, criterion.threshold):
        return _Reading("inconclusive", f"{said}, and the interval holds the bar: measure on more.", found, judged.digest)
    return _Reading("not-met", f"{said}, and the whole interval is beyond it.", found, judged.digest)


def _margin(criterion: Criterion, reading: _Reading) -> float:
    """How unfavourable a reading is: the greater, the worse."""
    if not isinstance(reading.measurement, Measured):
        return 0.0
    interval = reading.measurement.interval
    return interval.high if criterion.bound == "high" else -interval.low


# Gating claims


def _gate_claim(claim: str, assessed: Sequence[Assessment], policy: Policy, today: Date) -> tuple[CriterionResult, list[str]]:
    """The line of one gating claim, and what it passes with in the open."""
    name, response = f"claim:{claim}", "Close it, or let a named person accept it in the policy until a date."
    if not assessed:
        return _result(name, claim, "hold", _Reading("missing", "The claim was not assessed on this subject."), response), []
    if any(a.support == "defeated" for a in assessed):
        defeated = _Reading("not-met", "Valid evidence speaks against the claim: it is defeated.")
        return _result(name, claim, "fail", defeated, "Do not release on this claim."), []
    if any(a.support in ("not-supported", "no-hook") for a in assessed):
        empty = not any(a.evidence for a in assessed)
        why = "No valid evidence bears on the claim." if empty else "No valid evidence speaks for the claim."
        return _result(name, claim, "hold", _Reading("missing" if empty else "inconclusive", why), response), []
    held, disclosed = [], []
    for reason, detail in dict.fromkeys(pair for a in assessed for pair in _reasons_to_hold(a)):
        accepted = [a for a in policy.accept if a.reason == reason and a.claim in (None, claim)]
        current = [a for a in accepted if a.review_by >= today]
        if current:
            disclosed.append(
                f"{name}: {reason}: {detail}. Accepted by {current[0].who} until {current[0].review_by}: {current[0].why}"
            )
        elif reason == "structural-gap":
            disclosed.append(f"{name}: {reason}: {detail}.")
        else:
            lapsed = f" (its acceptance lapsed on {max(a.review_by for a in accepted)})" if accepted else ""
            held.append(f"{reason}: {detail}{lapsed}")
    if held:
        return _result(name, claim, "hold", _Reading("not-met", "; ".join(held) + "."), response), disclosed
    supports = sorted({a.support for a in assessed})
    if "partially-supported" in supports:
        disclosed.append(f"{name}: the claim is partially supported only.")
    return _result(name, claim, "hold", _Reading("met", f"The claim is {' / '.join(supports)}."), response), disclosed


def _reasons_to_hold(assessment: Assessment) -> Iterator[tuple[str, str]]:
    """Gaps, fragility and weak support of one assessment: a reason a policy can name, and its numbers."""
    by = f" for {assessment.requirement}" if assessment.requirement else ""
    for gap in assessment.gaps:
        need, have, can = (getattr(a, gap.axis) for a in (assessment.required, assessment.achieved, assessment.achievable))
        if gap.structural:
            yield "structural-gap", f"{gap.axis} {need} is needed{by}, {can} is the most that can be had today"
        if gap.execution:
            yield f"execution-gap:{gap.axis}", f"{gap.axis} {need} is needed{by}, {have} was had, {can} could be"
    for fragile in assessment.fragile:
        yield fragile.code, fragile.detail
    explained = any(gap.axis == "model" and gap.structural + gap.execution for gap in assessment.gaps)
    if assessment.support == "partially-supported" and not explained:
        yield "partial-support", f"the evidence speaks for the claim and does not carry it (tier {assessment.tier})"

"""Each requirement of the crosswalk against the evidence that was brought: met, not met, inconclusive or missing, and why.

1. Only pieces about this release count, and only fresh ones; what says to be of the future is inconclusive.
2. Of several pieces the newest counts, but a case that broke and a check that failed stay so: running again until it passes
   undoes nothing, and a fix has another fingerprint.
3. Runs, checks and parity count only if the policy was registered before they were made; decisions have their own registrations.
4. A case that did not show that it can fail has shown nothing.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, TypeVar

from auditgap.records import CriterionResult, Date, Decision, Digest
from auditgap.records.integrity import CaseResult, IntegrityRun
from auditgap.records.manifest import ReleaseManifest
from auditgap.records.parity import Parity, Waived
from auditgap.records.promotion import PromotionRegistration, ReleaseCheck
from auditgap.release.promotion.pieces import Piece, describes, made_at
from auditgap.release.promotion.policy import (
    CheckNeeded,
    ClaimNeeds,
    EvaluationNeeded,
    IntegrityNeeded,
    Needed,
    ParityNeeded,
)

__all__ = ["Asked", "judge_need"]

R = TypeVar("R", Decision, IntegrityRun, Parity, ReleaseCheck)
Status = Literal["met", "not-met", "inconclusive", "missing"]

_CLOCK_SKEW = dt.timedelta(minutes=5)


class Asked(NamedTuple):
    """What a requirement is judged on."""

    manifest: ReleaseManifest
    releases: frozenset[Digest]
    """Fingerprints of this release: as declared, and as observed."""
    pieces: tuple[Piece, ...]
    suite: Digest | None
    registration: PromotionRegistration | None
    now: dt.datetime


class _Said(NamedTuple):
    status: Status
    reason: str
    evidence: Digest | None = None


def judge_need(claim: ClaimNeeds, need: Needed, asked: Asked) -> CriterionResult:
    """One line of the promotion."""
    status, reason, evidence = _judge(claim, need, asked)
    return CriterionResult(
        id=f"{need.evidence}:{need.id}",
        claim=claim.id,
        status=status,
        severity=need.severity if status == "not-met" else "hold",
        reason=reason,
        response=need.response,
        measurement=None,
        evidence=evidence,
    )


def _judge(claim: ClaimNeeds, need: Needed, asked: Asked) -> _Said:
    match need:
        case EvaluationNeeded():
            usable, excuse = _usable(asked, need, asked.pieces, Decision)
            return _evaluation(need, *usable[-1]) if usable else excuse
        case IntegrityNeeded():
            usable, excuse = _usable(asked, need, asked.pieces, IntegrityRun)
            return _integrity(claim, need, asked, usable) if usable else excuse
        case ParityNeeded():
            usable, excuse = _usable(asked, need, asked.pieces, Parity)
            return _parity(need, *usable[-1], asked) if usable else excuse
        case CheckNeeded():
            named = [piece for piece in asked.pieces if _is_named(piece.record, need)]
            usable, excuse = _usable(asked, need, named, ReleaseCheck)
            return _check(usable, asked) if usable else excuse


def _usable(asked: Asked, need: Needed, pieces: Iterable[Piece], kind: type[R]) -> tuple[list[tuple[Digest, R]], _Said]:
    """The pieces of a kind about this release that are fresh, oldest first; and what to say if there are none."""
    of_kind = [piece for piece in pieces if isinstance(piece.record, kind)]
    if not of_kind:
        return [], _Said("missing", f"No {need.evidence} evidence was brought.")
    about = {piece.digest: describes(piece, asked.manifest, asked.releases) for piece in of_kind}
    ours = [piece for piece in of_kind if about[piece.digest] is None]
    if not ours:
        others = "; ".join(sorted({str(what) for what in about.values()}))
        return [], _Said("missing", f"The {need.evidence} evidence is about {others}, not about this release.")
    if early := [piece for piece in ours if made_at(piece.record) > asked.now + _CLOCK_SKEW]:
        moment = made_at(early[0].record)
        return [], _Said("inconclusive", f"Made on {moment:%Y-%m-%d %H:%M} UTC, which is in the future.", early[0].digest)
    limit = dt.timedelta(days=need.max_age_days)
    fresh = [piece for piece in ours if asked.now - _latest(piece.record) <= limit]
    if not fresh:
        newest = max(ours, key=lambda piece: made_at(piece.record))
        age = (asked.now - made_at(newest.record)).days
        return [], _Said("missing", f"Stale: made {age} days ago, at most {need.max_age_days} are allowed.", newest.digest)
    ordered = sorted(fresh, key=lambda piece: (made_at(piece.record), piece.digest))
    return [(piece.digest, piece.record) for piece in ordered if isinstance(piece.record, kind)], _Said("missing", "")


def _latest(record: Decision | IntegrityRun | Parity | ReleaseCheck) -> dt.datetime:
    """The last moment at which it can have been made: parity states a day and no hour."""
    return made_at(record) + dt.timedelta(hours=24 if isinstance(record, Parity) else 0)


def _evaluation(need: EvaluationNeeded, digest: Digest, decision: Decision) -> _Said:
    if need.policy not in (None, decision.policy):
        return _Said("missing", f"Decided by policy {decision.policy[:19]}, asked was {str(need.policy)[:19]}.", digest)
    if decision.outcome not in need.accept:
        status: Status = "inconclusive" if decision.outcome == "hold" else "not-met"
        first = decision.disclosed or decision.reasons
        why = f": {first[0]}" if first else ""
        return _Said(status, f"The audit's gate decided {decision.outcome}, accepted is {', '.join(need.accept)}{why}", digest)
    lines = {line.id: line.status for line in decision.criteria}
    for claim in need.claims:
        if (line := lines.get(f"claim:{claim}", "missing")) != "met":
            return _Said("not-met" if line == "not-met" else "missing", f"The decision has {claim} as {line}.", digest)
    return _Said("met", f"The audit's gate decided {decision.outcome} on {decision.decided_at:%Y-%m-%d}.", digest)


def _integrity(claim: ClaimNeeds, need: IntegrityNeeded, asked: Asked, runs: Sequence[tuple[Digest, IntegrityRun]]) -> _Said:
    of_suite = [(digest, run) for digest, run in runs if run.suite == asked.suite]
    if not of_suite:
        return _Said("missing", f"The cases that were run are another set than {str(asked.suite)[:19]}.", runs[-1][0])
    results = [
        (digest, run, r) for digest, run in of_suite for r in run.results if r.mode == need.mode and _is_on(r, claim, need)
    ]
    newest = {r.case: (digest, run, r) for digest, run, r in results}
    if len(newest) < need.min_cases:
        few = f"{len(newest)} {need.mode} cases on {claim.id} were run, {need.min_cases} are needed."
        return _Said("missing", few, of_suite[-1][0])
    if absent := {*need.cases, *need.controls} - {name for _, _, r in results for name in (r.case, r.control)}:
        return _Said("missing", f"No {need.mode} case was run for {', '.join(sorted(absent))}.", of_suite[-1][0])
    if broken := [(digest, r) for digest, _, r in results if _broken(r)]:
        digest, first = broken[0]
        return _Said("not-met", f"{len(broken)} {need.mode} results: {first.case} is {first.verdict}: {first.reason}.", digest)
    if undecided := [(digest, r, why) for digest, _, r in newest.values() if (why := _undecided(r))]:
        digest, first, why = undecided[0]
        return _Said("inconclusive", f"{len(undecided)} of {len(newest)} {need.mode} cases: {first.case} {why}", digest)
    for digest, run, _ in newest.values():
        if asked.registration is None or run.started_at < asked.registration.registered_at:
            return _Said("inconclusive", "The policy and its case set were not registered before the run.", digest)
    return _Said("met", f"{len(newest)} {need.mode} cases held.", of_suite[-1][0])


def _is_on(result: CaseResult, claim: ClaimNeeds, need: IntegrityNeeded) -> bool:
    return claim.id in result.claims or result.control in need.controls or result.case in need.cases


def _broken(result: CaseResult) -> bool:
    return result.verdict == "BROKEN" or (result.verdict == "DEGRADED" and not result.passed)


def _undecided(result: CaseResult) -> str | None:
    if not result.passed:
        return f"is {result.verdict}: {result.reason}."
    if result.without:
        return f"was run without {', '.join(result.without)}."
    if result.sabotage != "BROKEN" and (result.mode == "scripted" or result.sabotage is not None):
        return f"has not shown that it can fail (with its control left out: {result.sabotage or 'not run'})."
    return "counts no runs." if result.n == 0 else None


def _parity(need: ParityNeeded, digest: Digest, parity: Parity, asked: Asked) -> _Said:
    if need.before not in (None, parity.before):
        return _Said("missing", f"Compared with release {parity.before[:19]}, asked was {str(need.before)[:19]}.", digest)
    if open_ := parity.uncovered():
        names = ", ".join(f"{delta.kind} {delta.id}" for delta in open_[:3])
        return _Said("not-met", f"{len(open_)} safety-relevant differences are not covered, such as {names}.", digest)
    if over := _expired(parity, asked.now.date()):
        return _Said("inconclusive", f"The waiver of {over[0].approver} expired on {over[0].expires}.", digest)
    if not _after_registration(parity, asked):
        return _Said("inconclusive", "The policy was not registered before parity was judged.", digest)
    said = f"In parity: {parity.n_identical} components identical, {len(parity.deltas)} differ harmlessly or are covered."
    return _Said("met", said, digest)


def _expired(parity: Parity, today: Date) -> list[Waived]:
    return [d.coverage for d in parity.deltas if isinstance(d.coverage, Waived) and d.coverage.expires < today]


def _is_named(record: object, need: CheckNeeded) -> bool:
    return isinstance(record, ReleaseCheck) and (record.kind, record.name) == (need.evidence, need.name)


def _check(checks: Sequence[tuple[Digest, ReleaseCheck]], asked: Asked) -> _Said:
    failed = [(digest, check) for digest, check in checks if check.verdict == "failed"]
    digest, check = failed[0] if failed else checks[-1]
    said = f"{check.name}: {check.summary}"
    if check.verdict != "passed":
        return _Said("not-met" if failed else "inconclusive", said, digest)
    if not _after_registration(check, asked):
        return _Said("inconclusive", f"The policy was not registered before {check.name} was checked.", digest)
    return _Said("met", said, digest)


def _after_registration(record: Parity | ReleaseCheck, asked: Asked) -> bool:
    return asked.registration is not None and _latest(record) >= asked.registration.registered_at

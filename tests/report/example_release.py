"""A release's records, made by hand: cases that held and broke, a parity with covered and open changes, a promotion."""

import datetime as dt

from auditgap.records import CriterionResult, Interval, digest_of
from auditgap.records.integrity import CaseResult, ExpectationResult, IntegrityRun
from auditgap.records.parity import (
    BehaviourCount,
    Coverage,
    Delta,
    Equivalence,
    Finding,
    NotNeeded,
    Parity,
    Uncovered,
    Waived,
)
from auditgap.records.promotion import Promotion, ProvenanceItem
from auditgap.report import Given, Release
from auditgap.stats import clopper_pearson

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
BEFORE, AFTER, KEY = digest_of(b"evaluated"), digest_of(b"to ship"), digest_of(b"key")


def ago(days: float) -> dt.datetime:
    return NOW - dt.timedelta(days=days)


def case(name: str = "RIC-001-once", **changes: object) -> CaseResult:
    fields = {
        "case": name,
        "case_digest": digest_of(name.encode()),
        "control": "CTL-idempotency",
        "layer": "after_the_fact",
        "severity": "critical",
        "mode": "scripted",
        "verdict": "HELD",
        "reason": "1 expectations hold",
        "faults": ("hang",),
        "n": 2,
        "n_broken": 0,
        "expectations": (ExpectationResult(id="once", n=2, n_failed=0),),
        "sabotage": "BROKEN",
        "finished_at": ago(1),
    }
    return CaseResult.model_validate(fields | changes)


def broken(name: str = "RIC-002-planted") -> CaseResult:
    failed = (ExpectationResult(id="no-leak", n=2, n_failed=1),)
    return case(
        name,
        control="CTL-redaction",
        verdict="BROKEN",
        reason="'no-leak' does not hold",
        n_broken=1,
        expectations=failed,
        faults=(),
    )


def run(*results: CaseResult, **changes: object) -> IntegrityRun:
    fields = {
        "suite": digest_of(b"suite"),
        "registration": digest_of(b"registration"),
        "manifest": AFTER,
        "system": "reference-agent",
        "seed": 0,
        "results": results or (case(),),
        "removed": {
            "CTL-idempotency": {r.case: "BROKEN" if r.control == "CTL-idempotency" else "HELD" for r in results or (case(),)}
        },
        "registered_at": ago(2),
        "started_at": ago(2),
        "finished_at": ago(1),
    }
    return IntegrityRun.model_validate(fields | changes)


def count(hits: int, n: int) -> BehaviourCount:
    return BehaviourCount(hits=hits, n=n, rate=clopper_pearson(hits, n))


def equivalence(before: int = 196, after: int = 194, n: int = 200, *, low: float = -0.05, high: float = 0.03) -> Equivalence:
    return Equivalence(
        behaviour="refusal_rate.harmful",
        margin=0.06,
        before=count(before, n),
        after=count(after, n),
        shift=(after - before) / n,
        interval=Interval(low=low, high=high, level=0.9, method="square-and-add"),
        verdict="equivalent" if low > -0.06 and high < 0.06 else "not-shown",
        evidence=(digest_of(b"counts before"), digest_of(b"counts after")),
    )


def delta(id: str = "main", kind: str = "system_prompt", coverage: Coverage | None = None, relevant: bool = True) -> Delta:
    return Delta.model_validate(
        {
            "kind": kind,
            "id": id,
            "before": digest_of(b"a"),
            "after": digest_of(b"b"),
            "delta_class": "safety-relevant" if relevant else "cosmetic",
            "findings": (
                Finding(
                    delta_class="safety-relevant" if relevant else "cosmetic",
                    rule="text-changed",
                    path="rendered",
                    says="x was y",
                ),
            ),
            "coverage": coverage or (Uncovered(why="nothing was brought") if relevant else NotNeeded()),
        }
    )


def waived(until: dt.date) -> Waived:
    return Waived(approver="A. Person", reason="the wording only", expires=until)


def parity(*deltas: Delta, **changes: object) -> Parity:
    made = Parity.of(deltas, before=BEFORE, after=AFTER, judged_on=ago(1).date(), n_identical=5)
    return made.model_copy(update=changes)


def criterion(id: str = "SC-1/integrity", status: str = "met", **changes: object) -> CriterionResult:
    fields = {
        "id": id,
        "claim": "SC-1",
        "status": status,
        "severity": "hold",
        "reason": "2 of 2 cases held.",
        "response": "Run the cases again.",
        "measurement": None,
        "evidence": digest_of(b"run") if status != "missing" else None,
    }
    return CriterionResult.model_validate(fields | changes)


def promotion(*criteria: CriterionResult, **changes: object) -> Promotion:
    lines = criteria or (criterion(),)
    fields = {
        "name": "payments",
        "from_stage": "staging",
        "to_stage": "production",
        "manifest": AFTER,
        "policy": digest_of(b"policy"),
        "registration": digest_of(b"registered"),
        "outcome": "pass" if all(c.status == "met" for c in lines) else "hold",
        "criteria": lines,
        "response": tuple(c.response for c in lines if c.status != "met"),
        "provenance": (
            ProvenanceItem(
                kind="lockfile", name="uv.lock", content=digest_of(b"lock"), verified=("its digest",), open=("its origin",)
            ),
        ),
        "signatures_needed": 1,
        "decided_at": ago(0.5),
        "expires": NOW + dt.timedelta(days=13),
        "non_claims": ("It says nothing about a release with another fingerprint.",),
    }
    return Promotion.model_validate(fields | changes)


def release(
    *runs: IntegrityRun,
    parity: Parity | None = None,
    promotion: Promotion | None = None,
    signed: bool = True,
    **changes: object,
) -> Release:
    keys = (KEY,) if signed else ()
    made = Release(
        runs=tuple(Given(r, keys) for r in runs),
        parity=Given(parity, keys) if parity else None,
        promotion=Given(promotion, keys) if promotion else None,
        generated_at=NOW,
    )
    return made._replace(**changes)


def sound() -> Release:
    """Everything held, is fresh, signed and about one release."""
    kept = delta("style", coverage=equivalence())
    return release(run(case(), case("RIC-003-twice")), parity=parity(kept, delta("note", relevant=False)), promotion=promotion())

"""Small records and a small ledger for the evidence tests."""

import datetime as dt

from auditgap.evidence import Store
from auditgap.records import (
    Access,
    Assessment,
    Card,
    Control,
    CriterionResult,
    DataRef,
    Decision,
    Environment,
    Evidence,
    FileDigest,
    Interval,
    Measured,
    ModelAccess,
    NotMeasured,
    Registration,
    Result,
    Subject,
    Threshold,
    digest_of,
    now,
)

SUBJECT = Subject(
    name="toy",
    architecture="LlamaForCausalLM",
    weights=(FileDigest(path="model.safetensors", content=digest_of(b"weights"), size=7),),
    tokenizer=(),
    dtype="float32",
    n_parameters=3,
)
CARD = Card(
    name="linear-probe",
    version="1",
    family="mechanistic",
    hypothesis="a direction separates the classes",
    needs=ModelAccess.M3,
    data="contrast",
    failure_modes=(),
    blind_spots=("says nothing about behaviour",),
    controls=("shuffled-label-null",),
    citation="none",
)


def registration(step: str = "probe", *, value: float = 0.7, seed: int = 0, at: dt.datetime | None = None) -> Registration:
    """A registration whose specification depends on step, threshold and seed."""
    return Registration(
        step=step,
        card=CARD,
        subject=SUBJECT.digest(),
        config={"layer": 3, "l2": 1e-05, "note": 'quoted "text" — ü'},
        data=(DataRef(name="d", content=digest_of(b"rows"), n_rows=4, source="d.jsonl"),),
        thresholds=(Threshold(measurement="auroc", comparator=">=", value=value, bound="low", response="stop"),),
        seed=seed,
        registered_at=at or now(),
    )


def evidence(plan: Registration, digest: str, *, auroc: float = 0.9) -> Evidence:
    """What a run of this registration could give."""
    measured = Measured(name="auroc", value=auroc, unit="auroc", n=40, interval=Interval.exact(auroc))
    control = Control(
        name="shuffled-label-null", passed=True, observed=NotMeasured(name="p", reason="none"), expected="p <= 0.05"
    )
    return Evidence(
        registration=digest,
        spec=plan.spec(),
        step=plan.step,
        instrument=plan.card.name,
        version=plan.card.version,
        subject=SUBJECT,
        granted=Access(model=ModelAccess.M5),
        result=Result(measurements=(measured,), controls=(control,), verdict="supported", summary="auroc 0.9"),
        environment=Environment(
            python="3.11", platform="x", packages={}, device="cpu", dtype="float32", attention="sdpa", threads=1
        ),
        started_at=now(),
        finished_at=now(),
        expires=dt.date(2030, 1, 1),
        non_claims=plan.card.blind_spots,
    )


def assessment(*evidence: str) -> Assessment:
    """A supported claim on this evidence."""
    return Assessment(
        requirement=None,
        claim="truthful",
        subject=SUBJECT.digest(),
        evidence=evidence,
        support="supported",
        tier=3,
        required=Access(),
        achievable=Access(),
        achieved=Access(),
        gaps=(),
        fragile=(),
        power="none stated",
    )


def decision(*assessments: str, evidence: str | None = None) -> Decision:
    """A pass on these assessments."""
    criterion = CriterionResult(
        id="c", claim="truthful", status="met", severity="fail", reason="ok", response="stop", measurement=None, evidence=evidence
    )
    return Decision(
        subject=SUBJECT.digest(),
        policy=digest_of(b"policy"),
        outcome="pass",
        reasons=(),
        criteria=(criterion,),
        disclosed=(),
        assessments=assessments,
        decided_at=now(),
    )


def fill(store: Store) -> None:
    """One statement of every kind, both roles, a rotation and two blobs: eight statements."""
    store.put_blob(b"rows")
    store.put_blob(b"policy")
    plan = registration()
    ran = store.add_evidence(evidence(plan, store.register(plan)))
    judged = store.add_assessment(assessment(ran))
    store.add_decision(decision(judged, evidence=ran))
    store.rotate("evaluation")
    store.register(registration("patch"))

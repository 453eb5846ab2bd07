"""A release, a policy and all the evidence that it asks for, each made so that a test can spoil one piece."""

import datetime as dt
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from auditgap.records import CriterionResult, Decision, FileDigest, Subject, digest_of
from auditgap.records.integrity import CaseResult, IntegrityRun
from auditgap.records.manifest import ReleaseManifest
from auditgap.records.parity import Parity
from auditgap.records.promotion import PromotionRegistration, ReleaseCheck
from auditgap.release.capture import component
from auditgap.release.capture.lockfile import lockfile
from auditgap.release.promotion import Evaluation, Piece, PromotionPolicy, Registered

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
SUITE, PLACE = digest_of(b"suite"), digest_of(b"other")
WEIGHTS = FileDigest(path="model.safetensors", content=digest_of(b"weights"), size=7)
SUBJECT = Subject(name="toy", architecture="LlamaForCausalLM", weights=(WEIGHTS,), tokenizer=(), dtype="float32", n_parameters=3)


REQUIREMENTS = "httpx==0.28.1\nstarlette==1.10.0\n"
with tempfile.TemporaryDirectory() as _folder:
    (Path(_folder) / "requirements.txt").write_text(REQUIREMENTS)
    LOCKED = lockfile(Path(_folder) / "requirements.txt").value


def ago(**span: float) -> dt.datetime:
    return NOW - dt.timedelta(**span)


def need(evidence: str, **fields: object) -> dict[str, object]:
    return {
        "id": f"{evidence}-1",
        "evidence": evidence,
        "max_age_days": 30,
        "response": f"Do {evidence} again.",
    } | fields


def policy(**changes: object) -> PromotionPolicy:
    requires = [
        need("evaluation", claims=["truthful"]),
        need("integrity", mode="scripted", min_cases=2),
        need("parity"),
        need("diagnostic", name="tool-selection"),
        need("release-log", name="canary-events"),
    ]
    document = {
        "format": "auditgap.dev/promotion-policy/v1",
        "name": "payments",
        "from_stage": "staging",
        "to_stage": "production",
        "valid_days": 14,
        "suite": SUITE,
        "claims": [{"id": "SC-3.2", "statement": "A payment is made once.", "requires": requires}],
    }
    return PromotionPolicy.parse(document | changes, where="policy")


def manifest(prompt: str = "Be careful.") -> ReleaseManifest:
    parts = (
        component("model", "main", {"id": "m-2026-11-01"}, source="release.yaml"),
        component("system_prompt", "main", {"rendered": prompt}, source="system.txt"),
        component("weights", "main", {WEIGHTS.path: {"content": WEIGHTS.content, "size": 7}}, source="model"),
        component("lockfile", "main", LOCKED, source="requirements.txt"),
        component("middleware", "authz", {"config": None}, source="release.yaml", order=0),
    )
    return ReleaseManifest(name="payments", captured="declared", captured_at=ago(days=3), components=parts)


def observed(prompt: str = "Be careful.") -> ReleaseManifest:
    parts = tuple(c for c in manifest(prompt).components if c.kind in ("model", "system_prompt"))
    return ReleaseManifest(name="canary", captured="observed", captured_at=ago(days=2), components=parts)


RELEASE = manifest().fingerprint()


def registered(by: PromotionPolicy | None = None, at: dt.datetime | None = None) -> Registered:
    chosen = by or policy()
    record = PromotionRegistration(
        policy=chosen.digest(),
        suite=chosen.suite,
        from_stage="staging",
        to_stage="production",
        registered_at=at or ago(days=2),
    )
    return Registered(digest_of(b"registration"), record)


def case(number: int = 1, **changes: object) -> CaseResult:
    fields = {
        "case": f"RIC-{number:03}-once",
        "case_digest": digest_of(b"%d" % number),
        "control": "CTL-idempotency",
        "layer": "after_the_fact",
        "severity": "critical",
        "claims": ("SC-3.2",),
        "mode": "scripted",
        "verdict": "HELD",
        "reason": "2 expectations hold",
        "n": 2,
        "n_broken": 0,
        "sabotage": "BROKEN",
        "finished_at": ago(days=1),
    }
    return CaseResult.model_validate(fields | changes)


def run(*results: CaseResult, at: dt.datetime | None = None, **changes: object) -> IntegrityRun:
    moment = at or ago(days=1)
    fields = {
        "suite": SUITE,
        "registration": digest_of(b"suite registration"),
        "manifest": RELEASE,
        "system": "reference-agent",
        "seed": 0,
        "results": results or (case(1), case(2)),
        "registered_at": moment,
        "started_at": moment,
        "finished_at": moment,
    }
    return IntegrityRun.model_validate(fields | changes)


def parity(**changes: object) -> Parity:
    fields = {
        "before": PLACE,
        "after": RELEASE,
        "judged_on": ago(days=1).date(),
        "n_identical": 5,
        "deltas": (),
        "verdict": "in-parity",
    }
    return Parity.model_validate(fields | changes)


def check(kind: str = "diagnostic", **changes: object) -> ReleaseCheck:
    name = "tool-selection" if kind == "diagnostic" else "canary-events"
    fields = {
        "kind": kind,
        "name": name,
        "manifest": RELEASE,
        "verdict": "passed",
        "summary": "No shift: energy distance p = 0.41, n = 200.",
        "content": digest_of(b"log"),
        "finished_at": ago(days=1),
    }
    return ReleaseCheck.model_validate(fields | changes)


def decision(outcome: str = "pass", *, claim: str = "met", at: dt.datetime | None = None) -> Decision:
    line = CriterionResult(
        id="claim:truthful",
        claim="truthful",
        status=claim,  # type: ignore[arg-type]
        severity="fail",
        reason="ok",
        response="stop",
        measurement=None,
        evidence=None,
    )
    return Decision(
        subject=SUBJECT.digest(),
        policy=digest_of(b"audit policy"),
        outcome=outcome,  # type: ignore[arg-type]
        reasons=("because",),
        criteria=(line,),
        disclosed=(),
        assessments=(),
        decided_at=at or ago(days=5),
    )


def piece(record: Decision | IntegrityRun | Parity | ReleaseCheck) -> Piece:
    evaluation = Evaluation(SUBJECT, frozenset()) if isinstance(record, Decision) else None
    return Piece(record.digest(), record, digest_of(b"evaluation key"), evaluation)


def pieces() -> dict[str, Piece]:
    """One piece for each requirement of `policy()`."""
    return {
        "evaluation": piece(decision()),
        "integrity": piece(run()),
        "parity": piece(parity()),
        "diagnostic": piece(check()),
        "release-log": piece(check("release-log")),
    }


def key_files(folder: Path, name: str) -> tuple[Path, Path]:
    """A new private key (mode 0600) and its public half."""
    key = Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.touch(mode=0o600)
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public

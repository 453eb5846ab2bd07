"""The promotion gate: policy, manifests and evidence become one signed decision. Default deny.

1. The policy's digest, and that of its case set, must have been signed before the runs that it decides on.
2. The release as observed on a canary run must agree with the release as declared.
3. Each requirement of the crosswalk gives one line; so does each file of provenance that is required.
4. Any line that is not met holds the release, or fails it where the policy says so. The response was written before the run.
"""

import datetime as dt
from typing import Literal, NamedTuple

from auditgap.records import CriterionResult, Digest
from auditgap.records.manifest import ReleaseManifest
from auditgap.records.promotion import Promotion, PromotionRegistration, ProvenanceItem
from auditgap.release.capture import compare_declared_observed
from auditgap.release.promotion.judging import Asked, judge_need
from auditgap.release.promotion.pieces import Piece
from auditgap.release.promotion.policy import PromotionPolicy

__all__ = ["Registered", "exit_code", "promote", "register"]

_NON_CLAIMS = (
    "Times are what the signers state; only a ledger or a time stamp of somebody else could prove them.",
    "That what was tested and watched is the release of the manifest is what the evaluators state.",
    "Components that leave no trace on the wire are as declared, not as observed.",
    "It says nothing about a release with another fingerprint, nor about this one after it expires.",
)
_STOP = "Do not promote."


class Registered(NamedTuple):
    """A registration whose signature was verified."""

    digest: Digest
    record: PromotionRegistration


def register(policy: PromotionPolicy, *, now: dt.datetime) -> PromotionRegistration:
    """What is to be signed before anything is run."""
    return PromotionRegistration(
        policy=policy.digest(),
        suite=policy.suite,
        from_stage=policy.from_stage,
        to_stage=policy.to_stage,
        registered_at=now,
    )


def promote(
    policy: PromotionPolicy,
    manifest: ReleaseManifest,
    pieces: tuple[Piece, ...],
    *,
    observed: ReleaseManifest | None,
    registered: Registered | None,
    provenance: tuple[ProvenanceItem, ...] = (),
    now: dt.datetime,
) -> Promotion:
    """Hold a release against a policy; the order of the pieces is irrelevant."""
    ours = registered.record if registered and registered.record.policy == policy.digest() else None
    releases = frozenset(m.fingerprint() for m in (manifest, observed) if m is not None)
    distinct = tuple({piece.digest: piece for piece in pieces}.values())
    asked = Asked(manifest, releases, distinct, policy.suite, ours, now)
    lines = [_registration(ours, registered, now), _agreement(manifest, observed)]
    lines += [judge_need(claim, need, asked) for claim, need in policy.needs()]
    lines += [_provenance(kind, provenance, policy.provenance_response) for kind in policy.provenance]
    blocking = [line for line in lines if line.status != "met"]
    outcome: Literal["pass", "hold", "fail"] = "pass"
    if blocking:
        outcome = "fail" if any(line.severity == "fail" and line.status == "not-met" for line in blocking) else "hold"
    return Promotion(
        name=policy.name,
        version=policy.version,
        from_stage=policy.from_stage,
        to_stage=policy.to_stage,
        manifest=manifest.fingerprint(),
        observed=observed.fingerprint() if observed else None,
        policy=policy.digest(),
        registration=registered.digest if registered and ours else None,
        outcome=outcome,
        criteria=tuple(lines),
        response=tuple(dict.fromkeys(line.response for line in blocking)),
        provenance=provenance,
        signatures_needed=policy.signatures,
        decided_at=now,
        expires=now + dt.timedelta(days=policy.valid_days),
        non_claims=_NON_CLAIMS,
    )


def exit_code(promotion: Promotion) -> int:
    """0 passes; 1 is blocked by something measured; 3 is blocked only by what is missing or inconclusive."""
    if promotion.outcome == "pass":
        return 0
    return 1 if any(line.status == "not-met" for line in promotion.criteria) else 3


def _registration(ours: PromotionRegistration | None, given: Registered | None, now: dt.datetime) -> CriterionResult:
    if ours is None:
        other = f"It registers policy {given.record.policy[:19]}, another one." if given else "No registration was brought."
        return _own("registration:policy", "missing", other, None)
    digest = given.digest if given else None
    if ours.registered_at > now:
        return _own("registration:policy", "inconclusive", "It was registered in the future.", digest)
    return _own("registration:policy", "met", f"Registered on {ours.registered_at:%Y-%m-%d %H:%M} UTC.", digest)


def _agreement(manifest: ReleaseManifest, observed: ReleaseManifest | None) -> CriterionResult:
    if observed is None:
        return _own("manifest:observed", "missing", "No observed manifest was brought: nobody saw what runs.", None)
    found = compare_declared_observed(manifest, observed)
    if found.disagreements:
        first = found.disagreements[0]
        reason = f"{len(found.disagreements)} components differ from what is declared: {first.kind} {first.id}: {first.says}"
        return _own("manifest:observed", "not-met", reason, None)
    reason = f"{found.n_agreed} components are on the wire as declared; {len(found.unobservable)} leave no trace there."
    return _own("manifest:observed", "met", reason, None)


def _provenance(kind: str, items: tuple[ProvenanceItem, ...], response: str) -> CriterionResult:
    item = next((item for item in items if item.kind == kind), None)
    if item is None:
        return _own(f"provenance:{kind}", "missing", f"No {kind} file was brought.", None, response)
    if problem := _unverified(item):
        return _own(f"provenance:{kind}", "not-met", problem, None, response)
    return _own(f"provenance:{kind}", "met", f"{item.name}: {'; '.join(item.verified)}.", None, response)


def _unverified(item: ProvenanceItem) -> str | None:
    """Why a file does not carry what it is there for."""
    if item.wrong or not item.verified:
        return f"{item.name}: {'; '.join(item.wrong or item.open)}."
    return None


def _own(
    name: str,
    status: Literal["met", "not-met", "inconclusive", "missing"],
    reason: str,
    evidence: Digest | None,
    response: str = _STOP,
) -> CriterionResult:
    """A line of the gate itself."""
    return CriterionResult(
        id=name,
        claim="",
        status=status,
        severity="fail" if status == "not-met" else "hold",
        reason=reason,
        response=response,
        measurement=None,
        evidence=evidence,
    )

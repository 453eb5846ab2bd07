"""How far the evidence in a store carries a claim, and how far it falls short of what a duty needs.

1. Keep the evidence about the subject that bears on the claim and may be believed (`judged.problems`).
2. Access: what the results may be credited with, what could be reached today, the gap on each axis (`gap`).
3. Tier of the evidence that speaks for the claim (`tier`), fragility of all of it (`fragility`).
4. Support. A valid verdict against the claim defeats it. A claim is supported if one agreeing result has the licence, the access,
   the power and the tier; otherwise agreeing evidence supports it partially. For latent, long-horizon, absence and universal
   claims behaviour alone never supports more than partially, however much of it there is.
"""

from collections.abc import Mapping, Sequence

from auditgap.errors import PlanError, nearest
from auditgap.governance.fragility import Bundle, fragile
from auditgap.governance.gap import achievable, achieved, best_licence, gaps
from auditgap.governance.judged import Judged, agrees, bearing_on, opposes, problems
from auditgap.governance.licensing import Licences, beyond_behaviour, licence, obtainable, powered
from auditgap.governance.limits import Limits
from auditgap.governance.power import power_sentence
from auditgap.governance.tier import bundle_tier
from auditgap.records import Access, Assessment, Claim, Date, Digest, Requirement, Support, Tier

__all__ = ["assess_claim", "assess_requirement", "counted"]


def assess_claim(
    claim: Claim,
    evidence: Sequence[Judged],
    licences: Licences,
    *,
    subject: Digest,
    today: Date,
    limits: Limits | None = None,
    obtainable: Access | None = None,
    released: Digest | None = None,
) -> Assessment:
    """One claim about one subject, judged on all evidence given; the order of the evidence is irrelevant.

    `obtainable` defaults to the shipped table; `released` is the digest that serves people, if known.
    """
    return _assess(claim, None, evidence, licences, subject, today, limits or Limits(), obtainable, released)


def assess_requirement(
    requirement: Requirement,
    claims: Mapping[str, Claim],
    evidence: Sequence[Judged],
    licences: Licences,
    *,
    subject: Digest,
    today: Date,
    limits: Limits | None = None,
    obtainable: Access | None = None,
    released: Digest | None = None,
) -> tuple[Assessment, ...]:
    """One assessment per claim that the requirement presupposes; a single `no-hook` one if it presupposes none.

    Required is the crosswalk's access joined with the least access that checking the claim itself needs.

    Raises:
        PlanError: the requirement names a claim that is not in `claims`.
    """
    for claim in requirement.claims:
        if claim not in claims:
            raise PlanError(f"requirement '{requirement.id}' presupposes the unknown claim '{claim}'{nearest(claim, claims)}")
    presupposed = [claims[claim] for claim in requirement.claims] or [None]
    given = (evidence, licences, subject, today, limits or Limits(), obtainable, released)
    return tuple(_assess(claim, requirement, *given) for claim in presupposed)


def _assess(
    claim: Claim | None,
    requirement: Requirement | None,
    evidence: Sequence[Judged],
    table: Licences,
    subject: Digest,
    today: Date,
    limits: Limits,
    best: Access | None,
    released: Digest | None,
) -> Assessment:
    found = counted(claim, evidence, subject)
    agreeing = [j for j in found if claim and agrees(claim, j)]
    required = (requirement.required if requirement else Access()).join(claim.required if claim else Access())
    reached = achieved(claim, found, table, min_power=limits.min_power)
    best = obtainable().access if best is None else best
    reachable = achievable(best, best_licence(claim, table, min_power=limits.min_power), reached)
    tier = bundle_tier(claim, agreeing, table, limits) if claim else 0
    return Assessment(
        requirement=requirement.id if requirement else None,
        claim=claim.id if claim else None,
        subject=subject,
        evidence=tuple(j.digest for j in found),
        support=_support(claim, found, agreeing, tier, table, limits),
        tier=tier,
        required=required,
        achievable=reachable,
        achieved=reached,
        gaps=gaps(required, reachable, reached),
        fragile=fragile(Bundle(claim, found, required, table, limits, today, released))
        if claim and claim.modality != "process"
        else (),
        power=power_sentence(claim, found, table),
    )


def counted(claim: Claim | None, evidence: Sequence[Judged], subject: Digest) -> tuple[Judged, ...]:
    """Evidence about the subject that bears on the claim and may be believed: once each, in the order of the digests.

    A process claim is about the evaluation itself, so all of it counts towards its access, and none of it towards its support.
    """
    if claim is None:
        return ()
    distinct = {j.digest: j for j in evidence if j.evidence.subject.digest() == subject and not problems(j)}
    return tuple(distinct[d] for d in sorted(distinct) if claim.modality == "process" or bearing_on(claim, distinct[d]))


def _support(
    claim: Claim | None, counted: Sequence[Judged], agreeing: Sequence[Judged], tier: Tier, table: Licences, limits: Limits
) -> Support:
    if claim is None:
        return "no-hook"
    if any(opposes(claim, j) for j in counted):
        return "defeated"
    if not agreeing:
        return "not-supported"
    return "supported" if any(_carries(claim, j, tier, table, limits) for j in agreeing) else "partially-supported"


def _carries(claim: Claim, judged: Judged, tier: Tier, table: Licences, limits: Limits) -> bool:
    """True if this result alone has what the claim asks of its strongest evidence; the tier is that of all evidence together."""
    name = judged.evidence.instrument
    entry = table.find(name)
    row = entry.row(claim) if entry else None
    if entry is None or row is None or (entry.family == "behavioural" and beyond_behaviour(claim)):
        return False
    credited = judged.evidence.granted.meet(licence(name, claim, table, min_power=limits.min_power))
    reads = credited.model.rank >= claim.required.model.rank
    return reads and min(tier, row.max_tier) >= row.carries_at and powered(name, claim, table, min_power=limits.min_power)

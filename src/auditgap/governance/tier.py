"""How far agreeing evidence has climbed, from 0 (none) to 5.

1. Proposed: a valid verdict speaks for the claim.
2. Causally suggestive: necessity, by intervention, against a size-matched random control.
3. Mechanistically supported: also sufficiency, specificity, consistency over two of templates, ablations or seeds, and a
   bootstrap reliability (measurement `reliability`) of at least 0.7 at the lower end of its interval.
4. Triangulated: tier 3, and another instrument agrees at tier 2 or above.
5. Validated: tier 4 on another distribution too, re-run by another party, with enough measured power.

Each instrument stops at the `max_tier` of its licence. Tiers 1-3: Mechanistic Validity framework, version of 2026-06-25,
https://github.com/mechanistic-validity/mechanistic-validity. It names 4 and 5; their conditions here are ours.
"""

from collections.abc import Iterable, Sequence

from auditgap.governance.judged import Judged
from auditgap.governance.licensing import Licences
from auditgap.governance.limits import Limits
from auditgap.records import Claim, Evidence, Measured, Property, Tier

__all__ = ["bundle_tier", "evidence_tier", "independent_reruns"]

CAUSAL: tuple[Property, ...] = ("intervention", "necessity", "random-baseline")
MECHANISM: tuple[Property, ...] = (*CAUSAL, "sufficiency", "specificity", "consistency")


def evidence_tier(evidence: Evidence, *, min_reliability: float) -> Tier:
    """The tier of one piece of evidence on its own: 0 to 3."""
    if evidence.result.verdict not in ("supported", "refuted"):
        return 0
    shown = set(evidence.result.properties)
    if not shown.issuperset(CAUSAL):
        return 1
    reliability = evidence.result.measurement("reliability")
    reliable = isinstance(reliability, Measured) and reliability.interval.low >= min_reliability
    return 3 if shown.issuperset(MECHANISM) and reliable else 2


def bundle_tier(claim: Claim, agreeing: Sequence[Judged], table: Licences, limits: Limits) -> Tier:
    """The tier of all evidence that speaks for the claim; 0 if none does."""
    if not agreeing:
        return 0
    ceilings: list[Tier] = [_ceiling(claim, j, table) for j in agreeing]
    reached: list[Tier] = [evidence_tier(j.evidence, min_reliability=limits.min_reliability) for j in agreeing]
    tiers: list[Tier] = [a if a <= b else b for a, b in zip(reached, ceilings, strict=True)]
    pillars = [j for j, tier in zip(agreeing, tiers, strict=True) if tier >= 3]
    corroborating = {j.evidence.instrument for j, tier in zip(agreeing, tiers, strict=True) if tier >= 2}
    if not pillars or max(ceilings) < 4 or len(corroborating) < 2:
        return max(tiers)
    shifted = any("out-of-distribution" in j.evidence.result.properties for j in pillars)
    powers = [power for j in agreeing if (power := _power(claim, j, table)) is not None]
    validated = shifted and max(powers, default=0.0) >= limits.min_power and bool(independent_reruns(agreeing))
    return 5 if validated and max(ceilings) == 5 else 4


def independent_reruns(judged: Iterable[Judged]) -> set[str]:
    """Specifications that at least two different keys have signed results for."""
    signers: dict[str, set[str]] = {}
    for j in judged:
        signers.setdefault(j.evidence.spec, set()).add(j.keyid)
    return {spec for spec, keys in signers.items() if len(keys) > 1}


def _ceiling(claim: Claim, judged: Judged, table: Licences) -> Tier:
    entry = table.find(judged.evidence.instrument)
    row = entry.row(claim) if entry else None
    return row.max_tier if row else 0


def _power(claim: Claim, judged: Judged, table: Licences) -> float | None:
    entry = table.find(judged.evidence.instrument)
    return entry.power_for(claim) if entry else None

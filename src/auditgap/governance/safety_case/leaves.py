"""What the evidence that a solution cites is worth: its doubt, whether it still stands, and whether it is in date.

1. Take the evidence about the subject that the solution cites.
2. Assess its claim on that evidence alone: what is merely in the store is not what the case rests on.
3. Assess it on the whole store too: evidence against the claim counts, whether the case cites it or not.
4. Doubt comes from the table. Health looks at support and fragility, never at dates. Timeliness looks at dates alone.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from auditgap.errors import nearest
from auditgap.governance.assess import assess_claim
from auditgap.governance.judged import Judged
from auditgap.governance.licensing import Licences
from auditgap.governance.safety_case.records import Citing, Solution
from auditgap.governance.safety_case.table import DoubtTable
from auditgap.records import Assessment, Claim, Date, Digest, Number, Record, Support, Tier

__all__ = ["Health", "Leaf", "Timeliness", "judge_leaf"]

Health = Literal["green", "amber", "red"]
"""Green: the evidence carries the claim. Amber: in part, or fragile. Red: it does not, or something stands against it."""
Timeliness = Literal["current", "stale", "undated"]
"""Current: what is in date carries as much as all. Stale: it does not. Undated: there is no evidence that could expire."""


class Leaf(Record):
    """One solution, judged."""

    id: str
    claim: str
    evidence: tuple[Digest, ...]
    """What counted, of what was cited."""
    support: Support
    tier: Tier
    fragile: tuple[str, ...]
    """Codes of the reasons, expiry left out: that is the other axis."""
    doubt: Number
    health: Health
    timeliness: Timeliness
    expires: Date | None
    """The first day on which a cited piece of evidence has expired or will."""
    why: tuple[str, ...]


class _Reading(NamedTuple):
    assessment: Assessment
    doubt: float


def judge_leaf(
    solution: Solution,
    claim: Claim,
    held: Sequence[Judged],
    licences: Licences,
    table: DoubtTable,
    *,
    subject: Digest,
    today: Date,
) -> Leaf:
    """One solution against all evidence held; the order of the evidence is irrelevant."""

    def read(evidence: Sequence[Judged]) -> _Reading:
        assessment = assess_claim(claim, evidence, licences, subject=subject, today=today)
        return _Reading(assessment, table.doubt(assessment.support, assessment.tier))

    cited = [j for j in held if any(_cites(c, j) for c in solution.evidence)]
    alone, fresh = read(cited), read([j for j in cited if j.evidence.expires >= today])
    support: Support = "defeated" if read(held).assessment.support == "defeated" else alone.assessment.support
    fragile = tuple(dict.fromkeys(reason.code for reason in alone.assessment.fragile if reason.code != "F1.expired"))
    entered = solution.doubt.at_least if solution.doubt else 0.0
    counted = [j for j in cited if j.digest in alone.assessment.evidence]
    return Leaf(
        id=solution.id,
        claim=claim.id,
        evidence=alone.assessment.evidence,
        support=support,
        tier=alone.assessment.tier,
        fragile=fragile,
        doubt=max(table.doubt(support, alone.assessment.tier), entered),
        health=_health(support, fragile),
        timeliness=_timeliness(alone, fresh),
        expires=min((j.evidence.expires for j in counted), default=None),
        why=tuple(_why(solution, claim, held, counted, subject, support, alone.assessment)),
    )


def _cites(citing: Citing, judged: Judged) -> bool:
    if citing.statement is not None:
        return citing.statement == judged.digest
    return citing.instrument == judged.evidence.instrument and citing.step in (None, judged.evidence.step)


def _health(support: Support, fragile: Sequence[str]) -> Health:
    if support not in ("supported", "partially-supported"):
        return "red"
    return "green" if support == "supported" and not fragile else "amber"


def _timeliness(alone: _Reading, fresh: _Reading) -> Timeliness:
    if not alone.assessment.evidence:
        return "undated"
    return "stale" if not fresh.assessment.evidence or fresh.doubt > alone.doubt else "current"


def _why(
    solution: Solution,
    claim: Claim,
    held: Sequence[Judged],
    counted: Sequence[Judged],
    subject: Digest,
    support: Support,
    alone: Assessment,
) -> list[str]:
    """What a reader must know beside the numbers."""
    said = [why for c in solution.evidence if (why := _missing(c, held, counted, subject, claim))]
    if support == "defeated":
        against = "the evidence cited" if alone.support == "defeated" else "evidence in the store that the case does not cite"
        said.append(f"{against} speaks against '{claim.id}'")
    elif counted:
        said.append(f"{support}, tier {alone.tier}")
    if solution.doubt:
        said.append(f"{solution.doubt.who} sees a doubt of at least {solution.doubt.at_least:g}: {solution.doubt.why}")
    return said


def _missing(citing: Citing, held: Sequence[Judged], counted: Sequence[Judged], subject: Digest, claim: Claim) -> str | None:
    """Why nothing that this citation names counts, or None."""
    if any(_cites(citing, j) for j in counted):
        return None
    named = [j for j in held if _cites(citing, j)]
    if any(j.evidence.subject.digest() == subject for j in named):
        return f"{citing} does not count: it is invalid, or does not bear on '{claim.id}'"
    if named:
        return f"{citing} is about another subject"
    known = {j.evidence.instrument for j in held}
    close = nearest(citing.instrument, known) if citing.instrument and citing.instrument not in known else ""
    return f"the store holds no {citing}{close}"

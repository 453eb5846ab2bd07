"""The audit gap, axis by axis: what a duty needs, what can be had, what was had.

    achieved   = join over valid evidence of meet(granted, licence)       what each result may be credited with
    achievable = join(meet(obtainable, best licence known), achieved)     what was reached is reachable
    structural = max(0, required - achievable)                            nobody can close it today
    execution  = max(0, min(required, achievable) - achieved)             the team can close it

Because `achieved <= achievable` by construction, `structural + execution == max(0, required - achieved)` on every axis.
"Audit gap" is a term of arXiv:2605.15164; this arithmetic is ours.
"""

from collections.abc import Iterable
from functools import reduce

from auditgap.governance.judged import Judged
from auditgap.governance.licensing import Licences, licence
from auditgap.records import AXES, Access, AxisGap, Claim, ModelAccess

__all__ = ["achievable", "achieved", "best_licence", "gaps"]


def achieved(claim: Claim | None, counted: Iterable[Judged], table: Licences, *, min_power: float) -> Access:
    """The access with which the evidence may be credited; the bottom if there is none.

    Componentwise over all evidence: one run may bring the weights and another the independence (`F2.access-not-joint` says so).
    """
    if claim is None:
        return Access()
    credited = (j.evidence.granted.meet(licence(j.evidence.instrument, claim, table, min_power=min_power)) for j in counted)
    return reduce(Access.join, credited, Access())


def best_licence(claim: Claim | None, table: Licences, *, min_power: float) -> Access:
    """The most that any instrument bearing on the claim is licensed for; no model access if none bears on it."""
    nothing = Access.top().model_copy(update={"model": ModelAccess.M0})
    bearings = claim.bearings if claim else ()
    return reduce(Access.join, (licence(b.instrument, claim, table, min_power=min_power) for b in bearings if claim), nothing)


def achievable(obtainable: Access, best: Access, achieved: Access) -> Access:
    """What could be reached today: obtainable and licensed, or reached already."""
    return obtainable.meet(best).join(achieved)


def gaps(required: Access, achievable: Access, achieved: Access) -> tuple[AxisGap, ...]:
    """One gap per axis, in levels (business days for `time`).

    Raises:
        ValueError: `achieved` exceeds `achievable`, so the two parts would not add up.
    """
    if not achievable.covers(achieved):
        raise ValueError(f"expected achieved <= achievable on every axis, got {achieved!r} and {achievable!r}; use achievable()")
    found = []
    for axis in AXES:
        need, can, have = required.rank(axis), achievable.rank(axis), achieved.rank(axis)
        structural, execution = max(0, need - can), max(0, min(need, can) - have)
        found.append(AxisGap(axis=axis, required=need, achieved=have, structural=structural, execution=execution))
    return tuple(found)

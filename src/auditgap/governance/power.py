"""What a search that found nothing is worth: the sentence about its power, from measured power only."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from auditgap.governance.judged import Judged, agrees, opposes
from auditgap.governance.licensing import Licences
from auditgap.records import Claim

__all__ = ["PowerSight", "power_sentence", "power_sight"]


class PowerSight(NamedTuple):
    """What may be said of one failure mode that an audit did not find."""

    status: Literal["licensed", "blind", "no-search"]
    """`licensed`: its power is high enough to say so. `no-search`: nothing was searched for that could have been missed."""
    sentence: str


class _NoSearch(NamedTuple):
    """Why no search speaks for a claim; `missing` if one should have."""

    missing: bool
    why: str


def power_sentence(claim: Claim | None, counted: Sequence[Judged], table: Licences) -> str:
    """`this audit would have caught X with probability >= p (95 %)`, or why that cannot be said.

    p is the lower end of the 95 % interval of the detection rate on the hardest organisms tried, rounded down. With several
    instruments it is the best one's: whatever any of them finds is found.
    """
    if claim is None:
        return "cannot be said: the requirement presupposes no claim that could be searched against"
    found = _searches(claim, counted, table)
    if isinstance(found, _NoSearch):
        return f"cannot be said: {found.why}" if found.missing else found.why
    if not claim.failure_modes:
        return "cannot be said: the claim names no failure mode that could have been caught"
    return "; ".join(
        _caught(mode, found, table) or f"for {mode} it cannot be said: {_unpowered(found)}" for mode in claim.failure_modes
    )


def power_sight(mode: str, claim: Claim, counted: Sequence[Judged], table: Licences, *, min_power: float) -> PowerSight:
    """`this audit would have caught X ...` where the power reaches `min_power`; else `this audit would not have seen it`.

    Args:
        mode: one of the claim's failure modes.
        counted: the evidence that counts for the claim.
        table: the licences, with measured power.
        min_power: lower bound of the detection rate from which an absence may be claimed.
    """
    found = _searches(claim, counted, table)
    if isinstance(found, _NoSearch):
        return _blind(found.why) if found.missing else PowerSight("no-search", found.why)
    said = _caught(mode, found, table)
    if said is None:
        return _blind(_unpowered(found))
    best = max(entry.power_on(mode) or 0.0 for name in found if (entry := table.find(name)))
    if best < min_power:
        return _blind(f"its power on {mode} is >= {_floor(best)} (95 %), and {min_power:.2f} is needed to speak of absence")
    return PowerSight("licensed", said)


def _searches(claim: Claim, counted: Sequence[Judged], table: Licences) -> tuple[str, ...] | _NoSearch:
    """The instruments that looked for what the claim denies and did not find it."""
    if claim.modality == "process":
        return _NoSearch(False, "not a search: a process claim stands on documents and people")
    if not counted:
        return _NoSearch(True, "no valid evidence bears on the claim")
    if any(opposes(claim, j) for j in counted):
        return _NoSearch(False, "not needed: the audit found evidence against the claim")
    rows = [entry.row(claim) for j in counted if (entry := table.find(j.evidence.instrument))]
    if claim.modality not in ("absence", "universal") and not any(row and row.needs_power for row in rows):
        return _NoSearch(False, "not a search: the claim stands on the measured value and its interval")
    agreeing = sorted({j.evidence.instrument for j in counted if agrees(claim, j)})
    return tuple(agreeing) if agreeing else _NoSearch(True, "the search was inconclusive")


def _caught(mode: str, instruments: Sequence[str], table: Licences) -> str | None:
    """The sentence, from the instrument with the most power; None if none was measured."""
    entries = [entry for name in instruments if (entry := table.find(name)) and entry.power_on(mode) is not None]
    if not entries:
        return None
    best = max(entries, key=lambda entry: (entry.power_on(mode) or 0.0, entry.id))
    hardest = min((p for p in best.power if p.failure_mode == mode), key=lambda p: (p.lower_bound, p.difficulty))
    return f"this audit would have caught {mode} ({hardest.difficulty}) with probability >= {_floor(hardest.lower_bound)} (95 %)"


def _unpowered(instruments: Sequence[str]) -> str:
    return f"no power has been measured for {', '.join(instruments)}"


def _blind(why: str) -> PowerSight:
    return PowerSight("blind", f"this audit would not have seen it: {why}")


def _floor(power: float) -> str:
    return f"{math.floor(power * 100) / 100:.2f}"

"""What a search that found nothing is worth: the sentence about its power, from measured power only."""

import math
from collections.abc import Sequence

from auditgap.governance.judged import Judged, agrees, opposes
from auditgap.governance.licensing import Licences
from auditgap.records import Claim

__all__ = ["power_sentence"]


def power_sentence(claim: Claim | None, counted: Sequence[Judged], table: Licences) -> str:
    """`this audit would have caught X with probability >= p (95 %)`, or why that cannot be said.

    p is the lower end of the 95 % interval of the detection rate on the hardest organisms tried, rounded down. With several
    instruments it is the best one's: whatever any of them finds is found.
    """
    if claim is None:
        return "cannot be said: the requirement presupposes no claim that could be searched against"
    if claim.modality == "process":
        return "not a search: a process claim stands on documents and people"
    if not counted:
        return "cannot be said: no valid evidence bears on the claim"
    if any(opposes(claim, j) for j in counted):
        return "not needed: the audit found evidence against the claim"
    rows = [entry.row(claim) for j in counted if (entry := table.find(j.evidence.instrument))]
    if claim.modality not in ("absence", "universal") and not any(row and row.needs_power for row in rows):
        return "not a search: the claim stands on the measured value and its interval"
    searches = sorted({j.evidence.instrument for j in counted if agrees(claim, j)})
    if not searches:
        return "cannot be said: the search was inconclusive"
    if not claim.failure_modes:
        return "cannot be said: the claim names no failure mode that could have been caught"
    return "; ".join(_sentence(mode, searches, table) for mode in claim.failure_modes)


def _sentence(mode: str, instruments: Sequence[str], table: Licences) -> str:
    entries = [entry for name in instruments if (entry := table.find(name)) and entry.power_on(mode) is not None]
    if not entries:
        return f"for {mode} it cannot be said: no power has been measured for {', '.join(instruments)}"
    best = max(entries, key=lambda entry: (entry.power_on(mode) or 0.0, entry.id))
    hardest = min((p for p in best.power if p.failure_mode == mode), key=lambda p: (p.lower_bound, p.difficulty))
    floor = math.floor(hardest.lower_bound * 100) / 100
    return f"this audit would have caught {mode} ({hardest.difficulty}) with probability >= {floor:.2f} (95 %)"

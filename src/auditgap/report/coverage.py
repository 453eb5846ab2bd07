"""What an audit could have seen: the failure modes of its claims by the instruments that ran, with measured power only.

1. Rows are the failure modes of the claims that were assessed or that a criterion names; columns the instruments that ran.
2. A cell's power comes from the calibration, for the version of the instrument that ran; another version's power is unknown.
3. What may be said of each failure mode is said by `governance.power_sight`, on the evidence that counts for the claim.
"""

from typing import Literal, NamedTuple

from auditgap.governance import (
    Judged,
    Licences,
    Limits,
    PowerSight,
    counted,
    failure_modes,
    licences,
    power_sight,
    problems,
    with_power,
)
from auditgap.governance.coverage import CoverageCell, coverage
from auditgap.governance.measured_power import affordable, speaking
from auditgap.records import Calibration, Claim, Measured, PowerCell
from auditgap.report.audit import Audit
from auditgap.report.outline import registration_of

__all__ = ["CoverageTable", "Look", "ModeRow", "Ran", "Said", "coverage_table"]


class Ran(NamedTuple):
    """One column: an instrument that ran."""

    instrument: str
    version: str
    counts: bool
    """False if none of its evidence may be believed; it has then seen nothing, whatever its power."""


class Look(NamedTuple):
    """One cell."""

    instrument: str
    standing: Literal["licensed", "not-licensed", "not-measured", "cannot-reach"]
    """`licensed`: measured, with power and false alarms that let this instrument speak of absence."""
    reason: str
    """Why it is not licensed, was not measured, or is not reached; for a licensed one what it was measured on."""
    power: PowerCell | None = None
    """What was measured: the detector that speaks for the instrument, on the recipe where it does worst."""


class Said(NamedTuple):
    """What may be said of a failure mode, and for which claims."""

    sight: PowerSight
    claims: tuple[str, ...]


class ModeRow(NamedTuple):
    """One failure mode that the audit's claims are about."""

    id: str
    name: str
    looks: tuple[Look, ...]
    said: tuple[Said, ...]


class CoverageTable(NamedTuple):
    """The matrix of one audit."""

    ran: tuple[Ran, ...]
    rows: tuple[ModeRow, ...]
    min_power: float
    """Lower bound of power from which an absence may be claimed."""


def coverage_table(audit: Audit) -> CoverageTable:
    """The matrix of an audit; without a calibration every reachable cell is *not measured*."""
    judged = [
        Judged(digest, evidence, registration, "")
        for digest, evidence in audit.evidence
        if (registration := registration_of(audit, evidence))
    ]
    versions = {evidence.instrument: evidence.version for _, evidence in audit.evidence}
    believed = {
        j.evidence.instrument for j in judged if j.evidence.subject.digest() == audit.subject.digest() and not problems(j)
    }
    ran = tuple(Ran(name, version, name in believed) for name, version in sorted(versions.items()))
    table = with_power(licences(), audit.calibration, versions)
    claims: dict[str, list[Claim]] = {}
    for claim in _claims(audit):
        for mode in claim.failure_modes:
            claims.setdefault(mode, []).append(claim)
    known = failure_modes()
    cells = coverage([known[m] for m in claims if m in known], versions, audit.calibration, versions=versions)
    found = {(cell.failure_mode, cell.instrument): cell for cell in cells}
    limit, subject = Limits().min_power, audit.subject.digest()
    rows = []
    for mode, about in claims.items():
        said: dict[PowerSight, list[str]] = {}
        for claim in about:
            sight = power_sight(mode, claim, counted(claim, judged, subject), table, min_power=limit)
            said.setdefault(sight, []).append(claim.id)
        looks = tuple(
            _look(mode, column, found.get((mode, column.instrument)), audit.calibration, table, limit) for column in ran
        )
        name = known[mode].name if mode in known else mode
        rows.append(ModeRow(mode, name, looks, tuple(Said(sight, tuple(ids)) for sight, ids in said.items())))
    return CoverageTable(ran, tuple(rows), limit)


def _claims(audit: Audit) -> list[Claim]:
    """Every claim that was assessed, then those that a criterion names."""
    named = [a.claim for _, a in audit.assessments] + [c.claim for c in (audit.decision.criteria if audit.decision else ())]
    return [audit.claims[name] for name in dict.fromkeys(named) if name in audit.claims]


def _look(
    mode: str, column: Ran, cell: CoverageCell | None, calibration: Calibration | None, table: Licences, limit: float
) -> Look:
    name = column.instrument
    if cell is None:
        return Look(name, "not-measured", "the taxonomy of failure modes does not hold it")
    if cell.best is None:
        return Look(name, "cannot-reach" if cell.state == "cannot-reach" else "not-measured", cell.reason)
    asked = (mode, name, column.version, "default")
    speaks = [c for c in speaking(calibration) if (c.failure_mode, c.instrument, c.version, c.difficulty) == asked]
    speaks = [c for c in speaks if affordable(c)] or speaks
    shown = min((c for c in speaks if isinstance(c.power, Measured)), key=_lower_bound, default=cell.best)
    on = f"organism '{shown.organism}'"
    entry = table.find(name)
    power = entry.power_on(mode) if entry else None
    if not column.counts:
        return Look(name, "not-licensed", f"{on}; it ran, and none of its evidence may be believed", shown)
    if power is None:
        return Look(name, "not-licensed", f"{on}; too many false alarms, or no licence for it", shown)
    if power < limit:
        return Look(name, "not-licensed", f"{on}; the lower bound is below {limit:.2f}", shown)
    return Look(name, "licensed", on, shown)


def _lower_bound(cell: PowerCell) -> float:
    return cell.power.interval.low if isinstance(cell.power, Measured) else 0.0

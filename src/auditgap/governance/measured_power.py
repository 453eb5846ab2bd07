"""Licences with the power that a calibration measured.

1. Of each instrument and failure mode the first detector of a recipe speaks, at the recipe's default difficulty: choosing the
   best one after the fact would flatter it.
2. It counts only where false alarms on fresh twins and on fresh decoys were both measured and at most MAX_FALSE_ALARMS; power at
   a higher price is none.
3. Power belongs to one version of an instrument. For evidence of another version it is unknown, and the caller is told.
"""

from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from auditgap.errors import EvidenceInvalid
from auditgap.evidence.envelope import open_envelope, public_key
from auditgap.evidence.kinds import parse
from auditgap.governance.judged import Judged
from auditgap.governance.licensing import Licences, Power, licences
from auditgap.records import Calibration, Measured, Measurement, PowerCell

__all__ = ["MAX_FALSE_ALARMS", "affordable", "licences_for", "outdated", "shipped_calibration", "speaking", "with_power"]

FOLDER = Path(__file__).parent / "calibration"
MAX_FALSE_ALARMS = 0.05


@cache
def shipped_calibration(folder: Path = FOLDER) -> Calibration | None:
    """The calibration that comes with auditgap, its signature verified; None if none does.

    Raises:
        EvidenceInvalid: the record is not what its key signed.
    """
    record, key = folder / "calibration.dsse.json", folder / "calibration.pub"
    if not record.is_file():
        return None
    found = parse(open_envelope(record.read_bytes(), [public_key(bytes.fromhex(key.read_text(encoding="ascii").strip()))]))
    if not isinstance(found, Calibration):
        raise EvidenceInvalid(f"{record}: expected a calibration, got a {type(found).__name__}; install auditgap again")
    return found


def speaking(calibration: Calibration | None) -> tuple[PowerCell, ...]:
    """The cells that speak for an instrument: of each failure mode, recipe and difficulty its first detector."""
    first: dict[tuple[str, str, str, str], PowerCell] = {}
    for cell in calibration.cells if calibration else ():
        first.setdefault((cell.instrument, cell.failure_mode, cell.organism, cell.difficulty), cell)
    return tuple(first.values())


def affordable(cell: PowerCell) -> bool:
    """True if false alarms on fresh twins and on fresh decoys were both measured and are at most MAX_FALSE_ALARMS."""
    alarms = [_rate(m) for m in (cell.false_alarms_twin, cell.false_alarms_decoy)]
    return all(rate is not None and rate <= MAX_FALSE_ALARMS for rate in alarms)


def with_power(table: Licences, calibration: Calibration | None, versions: Mapping[str, str]) -> Licences:
    """The table with measured power filled in; `versions` are those of the instruments whose evidence is judged."""
    if calibration is None:
        return table
    source = f"calibration {calibration.digest()}"
    power: dict[str, list[Power]] = {}
    for cell in speaking(calibration):
        if (
            cell.difficulty == "default"
            and versions.get(cell.instrument, cell.version) == cell.version
            and (found := _power(cell, source))
        ):
            power.setdefault(cell.instrument, []).append(found)
    return table.model_copy(
        update={
            "instruments": tuple(
                entry.model_copy(update={"power": (*entry.power, *power.get(entry.id, ()))}) for entry in table.instruments
            )
        }
    )


def licences_for(evidence: Iterable[Judged]) -> Licences:
    """The shipped licences with the shipped power, as it applies to this evidence."""
    versions = {j.evidence.instrument: j.evidence.version for j in evidence}
    return with_power(licences(), shipped_calibration(), versions)


def outdated(calibration: Calibration | None, versions: Mapping[str, str]) -> tuple[str, ...]:
    """Per instrument whose power was measured with another version than these: what to run."""
    cells = calibration.cells if calibration else ()
    measured = {cell.instrument: (cell.version, cell.organism) for cell in cells}
    return tuple(
        f"the power of {name} was measured with version {measured[name][0]}, the evidence is of version {version}: "
        f"renew it with 'auditgap calibrate {measured[name][1]}'"
        for name, version in sorted(versions.items())
        if name in measured and measured[name][0] != version
    )


def _power(cell: PowerCell, source: str) -> Power | None:
    if not isinstance(cell.power, Measured) or not affordable(cell):
        return None
    return Power(
        failure_mode=cell.failure_mode,
        lower_bound=cell.power.interval.low,
        difficulty=f"as in organism '{cell.organism}', {cell.power.n} fresh models",
        source=source,
    )


def _rate(measurement: Measurement) -> float | None:
    return measurement.value if isinstance(measurement, Measured) else None

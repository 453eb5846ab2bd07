"""Failure modes by instruments: measured power, not measured, or not reached, each with its reason."""

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from auditgap.governance.failure_mode import FailureMode
from auditgap.records import Calibration, Measured, PowerCell

__all__ = ["CoverageCell", "coverage"]


class CoverageCell(NamedTuple):
    """What is known of one instrument on one failure mode."""

    failure_mode: str
    instrument: str
    state: Literal["measured", "not-measured", "cannot-reach"]
    reason: str
    """The organism it was measured on; the way of looking that was not measured; or why nothing would show."""
    best: PowerCell | None = None
    """The detector of this instrument with the highest lower bound of power, at the default difficulty."""


def coverage(
    modes: Iterable[FailureMode],
    instruments: Iterable[str],
    calibration: Calibration | None,
    *,
    versions: Mapping[str, str] | None = None,
) -> tuple[CoverageCell, ...]:
    """One cell per failure mode and instrument, none left out.

    An instrument reaches a failure mode if the taxonomy names it as a way of detecting it, or if its power on it was measured.
    With `versions` of the instruments in use, power that was measured with another version does not count.
    """
    names, cells, used = sorted(instruments), [], versions or {}
    for mode in modes:
        ways = {way.instrument: way for way in mode.detection if way.instrument}
        for name in names:
            known = _measured(calibration, mode.id, name)
            measured = [cell for cell in known if cell.version == used.get(name, cell.version)]
            if measured:
                best = max(measured, key=_lower_bound)
                cells.append(CoverageCell(mode.id, name, "measured", f"organism '{best.organism}'", best))
            elif known:
                reason = f"power was measured with version {known[0].version}, version {used[name]} ran"
                cells.append(CoverageCell(mode.id, name, "not-measured", reason))
            elif name in ways:
                cells.append(CoverageCell(mode.id, name, "not-measured", ways[name].method))
            else:
                cells.append(CoverageCell(mode.id, name, "cannot-reach", "the taxonomy names no way in which it would show"))
    return tuple(cells)


def _measured(calibration: Calibration | None, mode: str, instrument: str) -> list[PowerCell]:
    cells = calibration.cells if calibration else ()
    return [
        cell
        for cell in cells
        if (cell.failure_mode, cell.instrument, cell.difficulty) == (mode, instrument, "default")
        and isinstance(cell.power, Measured)
    ]


def _lower_bound(cell: PowerCell) -> float:
    return cell.power.interval.low if isinstance(cell.power, Measured) else 0.0

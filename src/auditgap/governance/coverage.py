"""Failure modes by instruments: measured power, not measured, or not reached, each with its reason."""

from collections.abc import Iterable
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
    modes: Iterable[FailureMode], instruments: Iterable[str], calibration: Calibration | None
) -> tuple[CoverageCell, ...]:
    """One cell per failure mode and instrument, none left out.

    An instrument reaches a failure mode if the taxonomy names it as a way of detecting it, or if its power on it was measured.
    """
    names, cells = sorted(instruments), []
    for mode in modes:
        ways = {way.instrument: way for way in mode.detection if way.instrument}
        for name in names:
            measured = _measured(calibration, mode.id, name)
            if measured:
                best = max(measured, key=_lower_bound)
                cells.append(CoverageCell(mode.id, name, "measured", f"organism '{best.organism}'", best))
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

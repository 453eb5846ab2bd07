"""Positions, in percent of the width, of the small bars that stand beside numbers."""

import math
from typing import NamedTuple

from auditgap.records import AXES, Assessment, Axis, Deployment, Independence, Information, Measured, ModelAccess, Variants
from auditgap.report.words import AXIS, level

__all__ = ["GapBar", "IntervalBar", "gap_bars", "interval_bar"]

_SCALES = ((0.99, 1.0), (0.9, 1.0), (0.8, 1.0), (0.5, 1.0), (0.0, 0.01), (0.0, 0.1), (0.0, 0.2), (0.0, 0.5), (0.0, 1.0))
_TOP: dict[Axis, int] = {
    "model": len(ModelAccess) - 1,
    "variants": len(Variants) - 1,
    "information": len(Information) - 1,
    "deployment": len(Deployment) - 1,
    "independence": len(Independence) - 1,
}


class IntervalBar(NamedTuple):
    """An interval on a line, with the bars it was held against."""

    low: float
    high: float
    value: float
    bars: tuple[float, ...]
    start: float
    """What the left end of the line stands for."""
    end: float


class GapBar(NamedTuple):
    """One axis of a gap: what is achieved, what the team could add and what nobody can add today reach up to `required`."""

    axis: str
    required_words: str
    achieved_words: str
    required: float
    achieved: float
    execution: float
    structural: float
    n_execution: int
    n_structural: int
    n_open: int
    """Steps missing in all."""
    unit: str
    """What one step of this axis is: `level` or `business day`."""


def interval_bar(measured: Measured, bars: tuple[float, ...] = ()) -> IntervalBar:
    """Where an interval lies, on the narrowest round scale within 0 to 1 that holds it and its bars; else from or to zero."""
    points = (measured.interval.low, measured.interval.high, measured.value, *bars)
    fitting = [(low, high) for low, high in _SCALES if low <= min(points) and max(points) <= high]
    start, end = (
        min(fitting, key=lambda scale: scale[1] - scale[0]) if fitting else (-_round_up(-min(points)), _round_up(max(points)))
    )
    width = (end - start) or 1.0
    low, high, value, *placed = (100 * (point - start) / width for point in points)
    return IntervalBar(low=low, high=high, value=value, bars=tuple(placed), start=start, end=end)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, ... above a positive number; 0 for the others."""
    if value <= 0:
        return 0.0
    size = 10.0 ** math.floor(math.log10(value))
    return next((step * size for step in (1, 2, 5, 10, 20) if step * size >= value), value)


def gap_bars(assessment: Assessment) -> list[GapBar]:
    """One bar per axis on which something is required."""
    gaps = {gap.axis: gap for gap in assessment.gaps}
    bars = []
    for axis in AXES:
        required, achieved = assessment.required.rank(axis), assessment.achieved.rank(axis)
        if required == 0:
            continue
        gap = gaps.get(axis)
        n_execution, n_structural = (gap.execution, gap.structural) if gap else (0, 0)
        top = _TOP.get(axis, max(required, achieved))
        bars.append(
            GapBar(
                axis=AXIS[axis],
                required_words=level(axis, assessment.required),
                achieved_words=level(axis, assessment.achieved),
                required=100 * required / top,
                achieved=100 * min(achieved, top) / top,
                execution=100 * n_execution / top,
                structural=100 * n_structural / top,
                n_execution=n_execution,
                n_structural=n_structural,
                n_open=n_execution + n_structural,
                unit="business day" if axis == "time" else "level",
            )
        )
    return bars

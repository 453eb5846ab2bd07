"""Lines of evidence against the gaps they could close: what is worth the effort, what nothing is aimed at.

Effort stands beside the steps of gap, never divided into one score: a step on one axis is not worth a step on another.
"""

from collections.abc import Mapping, Sequence

from auditgap.governance.review_records import Line
from auditgap.records import Assessment, Axis, Number, Record

__all__ = ["LineView", "Portfolio", "portfolio"]


class LineView(Record):
    """One line of evidence and the gap it is aimed at today."""

    id: str
    what: str
    kind: str
    maturity: str
    failure_modes: tuple[str, ...]
    owner: str
    effort_person_days: Number
    execution_steps: int
    """Levels of access that the team could close."""
    structural_steps: int
    """Levels that nobody can close today."""
    note: str


class Portfolio(Record):
    """All lines, and what no line is aimed at."""

    lines: tuple[LineView, ...]
    unaddressed: tuple[str, ...]
    """Open gaps (`claim/axis`) of the claims in the plan that no line closes."""
    failure_modes: dict[str, dict[str, tuple[str, ...]]]
    """Per failure mode and kind of line: the ids of the lines."""


def portfolio(lines: Sequence[Line], assessments: Mapping[str, Assessment]) -> Portfolio:
    """The portfolio on the assessments of the day; `assessments` has the claims of the plan."""
    gaps: dict[tuple[str, Axis], tuple[int, int]] = {
        (claim, gap.axis): (gap.execution, gap.structural) for claim, a in assessments.items() for gap in a.gaps
    }
    aimed = {(part.claim, part.axis) for line in lines for part in line.closes}
    modes = dict.fromkeys(mode for line in lines for mode in line.failure_modes)
    return Portfolio(
        lines=tuple(_view(line, gaps) for line in lines),
        unaddressed=tuple(
            f"{claim}/{axis}" for (claim, axis), steps in gaps.items() if sum(steps) and (claim, axis) not in aimed
        ),
        failure_modes={mode: _by_kind([line for line in lines if mode in line.failure_modes]) for mode in modes},
    )


def _view(line: Line, gaps: Mapping[tuple[str, Axis], tuple[int, int]]) -> LineView:
    found = [gaps.get((part.claim, part.axis), (0, 0)) for part in line.closes]
    execution, structural = sum(e for e, _ in found), sum(s for _, s in found)
    return LineView(
        id=line.id,
        what=line.what,
        kind=line.kind,
        maturity=line.maturity,
        failure_modes=line.failure_modes,
        owner=line.owner,
        effort_person_days=line.effort_person_days,
        execution_steps=execution,
        structural_steps=structural,
        note="" if execution + structural else "closes no gap that is open today",
    )


def _by_kind(lines: Sequence[Line]) -> dict[str, tuple[str, ...]]:
    kinds = dict.fromkeys(line.kind for line in lines)
    return {kind: tuple(f"{line.id} ({line.maturity})" for line in lines if line.kind == kind) for kind in kinds}

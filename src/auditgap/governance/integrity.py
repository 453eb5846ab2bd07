"""Two views of integrity runs: toolchain states by safety expectations, and controls by the cases that miss them.

Both show what is missing as plainly as what is there: a cell that no case fills is there with n = 0, and a control whose absence
a guarding case does not notice is named.
"""

import datetime as dt
from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

from pydantic import Field

from auditgap.records import Digest, Number, Record, UtcTime
from auditgap.records.integrity import CaseResult, FaultKind, IntegrityRun, Mode
from auditgap.stats import clopper_pearson

__all__ = ["UNDISTURBED", "Cell", "ControlRow", "Matrix", "control_table", "matrix"]

UNDISTURBED = "undisturbed"
"""The state of a toolchain in which nothing goes wrong."""
LEVEL = 0.95


class Cell(Record):
    """What is known about one expectation in one state of the toolchain."""

    state: str
    """A fault kind, or `undisturbed`."""
    expectation: str
    mode: Mode
    status: Literal["held", "broken", "inconclusive", "empty"]
    n: int = Field(ge=0)
    n_failed: int = Field(ge=0)
    upper: Number | None = None
    """Exact one-sided 95 % bound of the failure rate; None when scripted, where the calls are chosen and not drawn."""
    cases: tuple[str, ...] = ()
    evidence: tuple[Digest, ...] = ()
    """Of the integrity runs."""
    oldest: UtcTime | None = None
    fresh: bool | None = None
    """False if the oldest result is older than allowed; None in an empty cell."""


class Matrix(Record):
    """Every state, every expectation that some case has, and a cell for each pair in each mode that was run."""

    states: tuple[str, ...]
    expectations: tuple[str, ...]
    modes: tuple[Mode, ...]
    cells: tuple[Cell, ...]

    def cell(self, state: str, expectation: str, mode: Mode = "scripted") -> Cell:
        """One cell; raises KeyError if the matrix has no such row, column or mode."""
        return {(cell.state, cell.expectation, cell.mode): cell for cell in self.cells}[state, expectation, mode]


def matrix(runs: Sequence[IntegrityRun], *, at: dt.datetime, max_age_days: int = 30) -> Matrix:
    """The matrix of some runs as of `at`. Results of stacks from which a control was left out do not count."""
    found = [(run.digest(), result) for run in runs for result in run.results if not result.without]
    known = (UNDISTURBED, *get_args(FaultKind))
    states = (*known, *sorted({fault for _, result in found for fault in result.faults} - set(known)))
    expectations = tuple(sorted({expectation.id for _, result in found for expectation in result.expectations}))
    modes = tuple(mode for mode in get_args(Mode) if any(result.mode == mode and result.n for _, result in found))
    cells = tuple(
        _cell(state, expectation, mode, found, oldest_allowed=at - dt.timedelta(days=max_age_days))
        for mode in modes
        for state in states
        for expectation in expectations
    )
    return Matrix(states=states, expectations=expectations, modes=modes, cells=cells)


def _cell(
    state: str, expectation: str, mode: Mode, found: Sequence[tuple[str, CaseResult]], *, oldest_allowed: dt.datetime
) -> Cell:
    here = [
        (digest, result, shown)
        for digest, result in found
        for shown in result.expectations
        if (result.mode, shown.id) == (mode, expectation) and state in (result.faults or (UNDISTURBED,))
    ]
    if not here:
        return Cell(state=state, expectation=expectation, mode=mode, status="empty", n=0, n_failed=0)
    n, n_failed = sum(shown.n for _, _, shown in here), sum(shown.n_failed for _, _, shown in here)
    decided = all(result.verdict in ("HELD", "DEGRADED", "BROKEN") and not shown.error for _, result, shown in here)
    oldest = min(result.finished_at for _, result, _ in here)
    return Cell(
        state=state,
        expectation=expectation,
        mode=mode,
        status="broken" if n_failed else "held" if decided and n else "inconclusive",
        n=n,
        n_failed=n_failed,
        upper=clopper_pearson(n_failed, n, level=2 * LEVEL - 1).high if mode == "live" and n else None,
        cases=tuple(sorted({result.case for _, result, _ in here})),
        evidence=tuple(sorted({digest for digest, _, _ in here})),
        oldest=oldest,
        fresh=oldest >= oldest_allowed,
    )


class ControlRow(NamedTuple):
    """One control, left out."""

    control: str
    guards: tuple[str, ...]
    """Cases that are about it."""
    broken: tuple[str, ...]
    """Cases that become BROKEN without it, its own and others."""
    missed: tuple[str, ...]
    """Its own cases that do not notice."""

    @property
    def detected(self) -> bool:
        """True if there is a case about it, and every such case notices."""
        return bool(self.guards) and not self.missed


def control_table(run: IntegrityRun) -> tuple[ControlRow, ...]:
    """Controls by cases, from a run in which each control was left out in turn; in the order of the chain."""
    guards = {control: tuple(sorted({r.case for r in run.results if r.control == control})) for control in run.removed}
    return tuple(
        ControlRow(
            control=control,
            guards=guards[control],
            broken=tuple(case for case, verdict in verdicts.items() if verdict == "BROKEN"),
            missed=tuple(case for case in guards[control] if verdicts.get(case) != "BROKEN"),
        )
        for control, verdicts in run.removed.items()
    )

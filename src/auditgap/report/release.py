"""How a release's records are arranged for reading, in HTML and in Markdown: what was shown, what was not, and what weakens it.

1. `Release` holds signed records of one release: integrity runs, the parity with the evaluated release, the promotion. Any may
   be missing, and is then said to be missing.
2. Every result gets one of a few standings. Green is only what was measured, held, is fresh, and could have failed.
3. `release_summary` says what that comes to, and every warning.
"""

import datetime as dt
from typing import Generic, Literal, NamedTuple, TypeVar, get_args

from auditgap.governance.integrity import Cell, ControlRow, Matrix, control_table, matrix
from auditgap.records import Digest, Record
from auditgap.records.integrity import CaseResult, IntegrityRun, Mode
from auditgap.records.parity import Delta, Parity, uncovered
from auditgap.records.promotion import Promotion

__all__ = [
    "CaseRow",
    "Controls",
    "Given",
    "Noticed",
    "Release",
    "Shown",
    "Standing",
    "cases",
    "cell_standing",
    "controls",
    "delta_standing",
    "evidence_labels",
    "grid",
    "lapsed",
    "not_run",
]

R = TypeVar("R", bound=Record)

Standing = Literal["passed", "failed", "inconclusive", "missing", "neutral"]
"""How a result is shown: green, red, amber, grey, or without colour."""


class Given(NamedTuple, Generic[R]):
    """A record as it was brought."""

    record: R
    keyids: tuple[Digest, ...] = ()
    """Keys whose signatures on it were verified; empty if it came unsigned."""


class Release(NamedTuple):
    """Everything one release report shows."""

    runs: tuple[Given[IntegrityRun], ...]
    """In the order in which the report numbers them: R1, R2, ..."""
    parity: Given[Parity] | None
    promotion: Given[Promotion] | None
    generated_at: dt.datetime
    max_age_days: int = 30
    """Results older than this are stale."""


class Shown(NamedTuple):
    """A standing in words."""

    standing: Standing
    label: str
    text: str = ""


class CaseRow(NamedTuple):
    """One case result, with how it is shown and the run that holds it."""

    result: CaseResult
    shown: Shown
    run: str


class Noticed(NamedTuple):
    """One control, left out: how it is shown, and what each case said."""

    row: ControlRow
    shown: Shown
    cases: tuple[tuple[str, Shown], ...]


class Controls(NamedTuple):
    """Controls by cases, of one run."""

    run: str
    system: str
    cases: tuple[str, ...]
    rows: tuple[Noticed, ...]
    """Empty if the controls were not left out in turn."""


def cases(release: Release) -> list[CaseRow]:
    """Every case of every run: what did not pass first, otherwise in the order of the runs."""
    rows = [
        CaseRow(result, _case(result, release), label)
        for label, run in evidence_labels(release).items()
        for result in run.results
    ]
    order: dict[Standing, int] = {"failed": 0, "inconclusive": 1, "missing": 2, "neutral": 3, "passed": 4}
    return sorted(rows, key=lambda row: order[row.shown.standing])


def evidence_labels(release: Release) -> dict[str, IntegrityRun]:
    """The runs by label."""
    return {f"R{i}": run.record for i, run in enumerate(release.runs, 1)}


def grid(release: Release) -> Matrix:
    """Toolchain states by safety expectations by mode, empty cells included."""
    return matrix([run.record for run in release.runs], at=release.generated_at, max_age_days=release.max_age_days)


def not_run(release: Release) -> list[Mode]:
    """Modes in which no case was run at all, so that the matrix has no cell for them."""
    return [mode for mode in get_args(Mode) if mode not in grid(release).modes]


def cell_standing(cell: Cell, rows: list[CaseRow]) -> Shown:
    """How one cell is shown: green only if every case in it passed, is fresh, and is known to be able to fail."""
    if cell.status == "empty":
        return Shown("missing", "empty")
    if cell.status == "broken":
        return Shown("failed", "broken")
    if cell.status == "held" and cell.fresh:
        resting = [r.shown for r in rows if r.result.case in cell.cases and r.result.mode == cell.mode and not r.result.without]
        weak = next((shown for shown in resting if shown.standing != "passed"), None)
        return Shown("inconclusive", f"held; {weak.label}") if weak else Shown("passed", "held")
    return Shown("inconclusive", "held, stale" if cell.status == "held" else "inconclusive")


def controls(release: Release) -> list[Controls]:
    """Each control left out, by the cases: one table per run."""
    return [_controls(label, run) for label, run in evidence_labels(release).items()]


def lapsed(release: Release) -> tuple[Delta, ...]:
    """Changes that were covered when the parity was judged, and are not on the day of the report."""
    if release.parity is None:
        return ()
    then = release.parity.record.uncovered()
    return tuple(d for d in uncovered(release.parity.record.deltas, release.generated_at.date()) if d not in then)


def delta_standing(delta: Delta, release: Release) -> Shown:
    """Whether a difference is covered on the day of the report."""
    if release.parity is None or not delta.needs_coverage:
        return Shown("neutral", "nothing to show")
    if delta in release.parity.record.uncovered() or delta in lapsed(release):
        return Shown("failed", "not covered")
    return Shown("passed", delta.coverage.status)


def _case(result: CaseResult, release: Release) -> Shown:
    if result.without:
        return Shown("neutral", f"{result.verdict} without {', '.join(result.without)}")
    if result.verdict == "NOT_RUN":
        return Shown("missing", "NOT_RUN")
    if not result.passed:
        return Shown("failed" if result.verdict in ("BROKEN", "DEGRADED") else "inconclusive", result.verdict)
    if result.sabotage != "BROKEN":
        return Shown("inconclusive", f"{result.verdict}, not shown that it can fail")
    if result.n == 0:
        return Shown("inconclusive", f"{result.verdict}, in no run")
    if result.finished_at < release.generated_at - dt.timedelta(days=release.max_age_days):
        return Shown("inconclusive", f"{result.verdict}, stale")
    return Shown("passed", result.verdict)


def _controls(label: str, run: IntegrityRun) -> Controls:
    names = tuple(dict.fromkeys([r.case for r in run.results] + [c for verdicts in run.removed.values() for c in verdicts]))
    rows = tuple(_noticed(row, run, names) for row in control_table(run))
    return Controls(label, run.system, names, rows)


def _noticed(row: ControlRow, run: IntegrityRun, names: tuple[str, ...]) -> Noticed:
    verdicts = run.removed[row.control]
    found = tuple((case, _without(case in row.guards, verdicts.get(case))) for case in names)
    unrun = [case for case in row.missed if case not in verdicts]
    if not row.guards:
        shown = Shown("failed", "no case is about it")
    elif len(unrun) < len(row.missed):
        shown = Shown("failed", "unnoticed", ", ".join(case for case in row.missed if case in verdicts))
    elif unrun:
        shown = Shown("missing", "not run", ", ".join(unrun))
    else:
        shown = Shown("passed", "noticed")
    return Noticed(row, shown, found)


def _without(own: bool, verdict: str | None) -> Shown:
    """What one case said with one control left out."""
    if verdict is None:
        return Shown("missing", "not run")
    if own:
        return Shown("passed", "noticed") if verdict == "BROKEN" else Shown("failed", f"unnoticed: {verdict}")
    return Shown("neutral", "breaks too" if verdict == "BROKEN" else verdict)

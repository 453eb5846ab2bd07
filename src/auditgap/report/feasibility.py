"""The feasibility card: per safety application of interpretability what was measured, as numbers or as *not measured*.

1. `governance/feasibility.yaml` says where a number would come from: cells of the calibration, or rows of the benchmark.
2. Of each instrument, recipe and difficulty the first detector speaks, as it does for licences.
3. What neither holds is *not measured*, with the reason. The card has no words of its own on whether something works.
"""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from auditgap.errors import PlanError, nearest
from auditgap.governance import Citation, by_id, failure_modes, parse
from auditgap.governance.measured_power import speaking
from auditgap.records import Calibration, Date, Family, Measured, Measurement, Number, PowerCell, Record
from auditgap.report.markup import heading, table, text
from auditgap.report.numbers import short

__all__ = ["Bench", "BenchRow", "CardEntry", "CardLine", "feasibility_card", "read_bench", "render_card"]

SHIPPED = Path(__file__).parents[1] / "governance" / "feasibility.yaml"


class BenchRow(Record):
    """One line of the benchmark's results."""

    name: str
    goal: Number | None
    better: Literal["lower", "higher"]
    unit: Literal["x", "ms", "us"] = "x"
    """`x`: a ratio to what is compared with."""
    median: Number | None = None
    """None if it was not measured."""
    quartiles: tuple[Number, Number] | None = None
    n_repetitions: int = 0
    also: dict[str, Number] = Field(default_factory=dict)
    note: str = ""


class Bench(Record):
    """The benchmark's results file: `bench/results.json`, as `make bench` writes it."""

    environment: dict[str, str]
    rows: dict[str, tuple[BenchRow, ...]]


class CardLine(Record):
    """One way in which the application was tried."""

    what: str
    power: tuple[PowerCell, ...] = ()
    bench: tuple[BenchRow, ...] = ()
    not_measured: str = ""
    """Why there is no number; empty if there is one."""


class CardEntry(Record):
    """One application."""

    id: str
    name: str
    asks: str
    lines: tuple[CardLine, ...]


class _Cells(Record):
    """Which cells of a calibration."""

    failure_modes: tuple[str, ...] = Field(min_length=1)
    instruments: tuple[str, ...] = ()
    """None named: all."""
    families: tuple[Family, ...] = ()
    """None named: all."""

    def holds(self, cell: PowerCell) -> bool:
        """True for a cell of one of these failure modes, instruments and families."""
        named = cell.instrument in self.instruments or not self.instruments
        return cell.failure_mode in self.failure_modes and named and (cell.family in self.families or not self.families)


class _Line(Record):
    what: str
    cells: _Cells | None = None
    bench: str | None = None
    """Name of a group of rows."""
    absent: str | None = None
    """Why nothing here could give a number."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in ("cells", "bench", "absent") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"'{self.what}': expected exactly one of cells, bench and absent, got {', '.join(given) or 'none'}")
        return self


class _Application(Record):
    id: str
    name: str
    asks: str
    lines: tuple[_Line, ...] = Field(min_length=1)


class _File(Record):
    sources: tuple[Citation, ...] = Field(min_length=1)
    review_date: Date
    applications: tuple[_Application, ...] = Field(min_length=1)


def feasibility_card(
    calibration: Calibration | None, bench: Bench | None = None, *, path: Path = SHIPPED
) -> tuple[CardEntry, ...]:
    """Every application with its numbers; nothing is left out for want of a number.

    Raises:
        PlanError: the file of applications is malformed, or names a failure mode that does not exist.
    """
    cells = speaking(calibration)
    return tuple(
        CardEntry(id=a.id, name=a.name, asks=a.asks, lines=tuple(_filled(line, cells, bench) for line in a.lines))
        for a in _applications(path)
    )


def read_bench(path: Path) -> Bench:
    """The results of `make bench`.

    Raises:
        PlanError: the file cannot be read, or is not such a file.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PlanError(f"{path}: expected the results of 'make bench' as JSON, got: {error}") from None
    return Bench.parse(document, where=str(path))


def render_card(card: tuple[CardEntry, ...], bench: Bench | None = None) -> str:
    """The card in Markdown; equal cards give equal bytes."""
    lines = [
        "## Feasibility card",
        "",
        "What was measured for each safety application of interpretability: power and false alarms on organisms with exact 95 % "
        "intervals and the number of models n, and cost as a ratio with its quartiles. What has no number says *not measured*. "
        "`auditgap coverage --card` prints this card; `--bench FILE` gives it the results of the benchmark.",
        *(line for entry in card for line in _entry(entry)),
    ]
    if bench and any(line.bench for entry in card for line in entry.lines):
        lines += ["", "Costs measured with " + text(", ".join(f"{k} {v}" for k, v in sorted(bench.environment.items()))) + "."]
    return "\n".join(lines) + "\n"


@cache
def _applications(path: Path) -> tuple[_Application, ...]:
    known = failure_modes()
    found = tuple(by_id(path, parse(path, _File).applications).values())
    for mode in (mode for a in found for line in a.lines if line.cells for mode in line.cells.failure_modes):
        if mode not in known:
            raise PlanError(f"{path}: no failure mode '{mode}'{nearest(mode, known)}")
    return found


def _filled(line: _Line, cells: tuple[PowerCell, ...], bench: Bench | None) -> CardLine:
    if line.cells:
        found = tuple(sorted((cell for cell in cells if line.cells.holds(cell)), key=_order))
        return CardLine(what=line.what, power=found, not_measured="" if found else "the calibration holds no such cell")
    if line.bench:
        rows = bench.rows.get(line.bench, ()) if bench else ()
        return CardLine(what=line.what, bench=rows, not_measured="" if rows else _unbenched(line.bench, bench))
    return CardLine(what=line.what, not_measured=line.absent or "")


def _unbenched(group: str, bench: Bench | None) -> str:
    return f"the results hold no row of group '{group}'" if bench else "no results of 'make bench' were given"


def _order(cell: PowerCell) -> tuple[str, ...]:
    return cell.failure_mode, cell.organism, "" if cell.difficulty == "default" else cell.difficulty, cell.instrument


def _entry(entry: CardEntry) -> Iterator[str]:
    yield from heading(3, text(entry.name))
    yield f"{text(entry.asks)}"
    for line in entry.lines:
        yield ""
        if line.not_measured:
            yield f"- {text(line.what)}: *not measured* ({text(line.not_measured)})"
            continue
        yield f"- {text(line.what)}:"
        yield ""
        if line.power:
            columns = ("failure mode", "organism", "difficulty", "instrument", "power", "false alarms: twin", "decoy", "AUROC")
            yield from table(columns, map(_power, line.power))
        else:
            yield from table(("cost", "median (quartiles, n)", "goal"), map(_cost, line.bench))


def _power(cell: PowerCell) -> tuple[str, ...]:
    named = (cell.failure_mode, cell.organism, cell.difficulty, f"{cell.instrument} {cell.version}")
    numbers = (cell.power, cell.false_alarms_twin, cell.false_alarms_decoy, cell.auroc)
    return (*map(text, named), *map(_said, numbers))


def _said(m: Measurement) -> str:
    if not isinstance(m, Measured):
        return f"*not measured* ({text(m.reason)})"
    return f"{m.value:.2f} ({m.interval.low:.2f} to {m.interval.high:.2f}, n = {m.n})"


def _cost(row: BenchRow) -> tuple[str, ...]:
    unit = "x" if row.unit == "x" else f" {row.unit}"
    goal = "none" if row.goal is None else f"{'≤' if row.better == 'lower' else '≥'} {short(row.goal)}{unit}"
    if row.median is None or row.quartiles is None:
        return text(row.name), f"*not measured* ({text(row.note) or 'no reason given'})", goal
    low, high = map(short, row.quartiles)
    return text(row.name), f"{short(row.median)}{unit} ({low} to {high}, n = {row.n_repetitions})", goal

"""Which framework sees which failure mode: named, reached by its required evidence, silent, or not read.

1. *named*: the text names the mode (`names` of the framework file), under its own word or another.
2. *reached*: a duty presupposes a claim that bounds or excludes the mode, and the framework's duties that presuppose that claim
   require, joined, at least the access that checking the claim needs, on every axis.
3. *silent*: neither. `short` lists duties that presuppose such a claim without requiring that access: they ask for an assurance
   and not for the evidence that could carry it.
4. *unread*: neither, where we had no more than the ids or the name of the framework. Not read is not silent.

The reading is ours. Reached does not say that any instrument can carry the claim today: the gap says that.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Literal

from auditgap.governance.claim import claims
from auditgap.governance.crosswalk import Framework, frameworks
from auditgap.governance.failure_mode import FailureMode, failure_modes
from auditgap.governance.rulebook import Depth
from auditgap.records import Access, Claim, Modality, Record

__all__ = ["Cell", "FrameworkSight", "Sight", "failure_matrix", "matrix_markdown", "shipped_matrix", "with_matrix"]

Sight = Literal["named", "reached", "silent", "unread"]
_MARKS: dict[Sight, str] = {"named": "N", "reached": "r", "silent": "-", "unread": "?"}
# that something can be read off (existence) or how it works (mechanism) bounds no failure mode
_EXCLUDES: tuple[Modality, ...] = ("rate", "bound", "absence", "universal")
BEGIN, END = "<!-- matrix: generated, do not edit -->", "<!-- end of matrix -->"


class Cell(Record):
    """How one framework sees one failure mode, and why."""

    sight: Sight
    named: tuple[str, ...] = ()
    """Where the text names it."""
    reached: tuple[str, ...] = ()
    """Duties whose required access, joined, is enough to check a claim that bounds or excludes it."""
    short: tuple[str, ...] = ()
    """Duties that presuppose such a claim and require less access than checking it needs."""

    @property
    def mark(self) -> str:
        """`N` named, `r` reached, `-` silent, `-!` silent though asked for, `?` not read."""
        return _MARKS[self.sight] + ("!" if self.sight == "silent" and self.short else "")


class FrameworkSight(Record):
    """One row of the matrix."""

    framework: str
    edition: str
    depth: Depth
    """How much of the text we had: silence is silence in that."""
    blind: int | None
    """Failure modes it is silent about; None where it was not read."""
    asked: int
    """Of these, the ones that it asks an assurance about."""
    cells: dict[str, Cell]
    """By failure mode, in the order of the taxonomy."""


def shipped_matrix() -> tuple[FrameworkSight, ...]:
    """The matrix of the frameworks and failure modes of this installation."""
    return failure_matrix(frameworks().values(), failure_modes().values(), claims())


def failure_matrix(
    frameworks: Iterable[Framework], failure_modes: Iterable[FailureMode], claims: Mapping[str, Claim]
) -> tuple[FrameworkSight, ...]:
    """One row per framework with one cell per failure mode."""
    modes = [mode.id for mode in failure_modes]
    return tuple(_row(framework, modes, claims) for framework in frameworks)


def _row(framework: Framework, modes: Sequence[str], claims: Mapping[str, Claim]) -> FrameworkSight:
    cells = {mode: _cell(framework, mode, claims) for mode in modes}
    silent = [cell for cell in cells.values() if cell.sight == "silent"]
    return FrameworkSight(
        framework=framework.id,
        edition=framework.edition,
        depth=framework.depth,
        blind=len(silent) if _read(framework) else None,
        asked=sum(bool(cell.short) for cell in silent),
        cells=cells,
    )


def _read(framework: Framework) -> bool:
    return framework.depth in ("text", "notes")


def _cell(framework: Framework, mode: str, claims: Mapping[str, Claim]) -> Cell:
    named = tuple(f"{naming.text_ref}: {naming.words}" for naming in framework.names if naming.failure_mode == mode)
    reached, short = [], []
    for claim in (c for c in claims.values() if mode in c.failure_modes and c.modality in _EXCLUDES):
        asking = [r for r in framework.requirements if claim.id in r.claims]
        required = reduce(Access.join, (r.required for r in asking), Access())
        (reached if required.covers(claim.required) else short).extend(r.id for r in asking)
    sight: Sight = "named" if named else "reached" if reached else "silent" if _read(framework) else "unread"
    return Cell(sight=sight, named=named, reached=tuple(dict.fromkeys(reached)), short=tuple(dict.fromkeys(short)))


def matrix_markdown(rows: Sequence[FrameworkSight]) -> str:
    """The matrix as two Markdown tables: frameworks with their counts, then failure modes by framework number."""
    columns = ("", "framework", "read from", "named", "reached", "blind to", "of these asked for")
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for number, row in enumerate(rows, 1):
        named, reached = (sum(cell.sight == sight for cell in row.cells.values()) for sight in ("named", "reached"))
        blind, asked = ("not known", "not known") if row.blind is None else (row.blind, row.asked)
        lines.append(f"| {number} | `{row.framework}` | {row.depth} | {named} | {reached} | {blind} | {asked} |")
    numbers = [str(number) for number, _ in enumerate(rows, 1)]
    lines += ["", f"| failure mode | {' | '.join(numbers)} |", f"|---|{'---|' * len(rows)}"]
    lines += [f"| `{mode}` | {' | '.join(row.cells[mode].mark for row in rows)} |" for mode in (rows[0].cells if rows else ())]
    lines += ["", "N named, r reached by required evidence, - silent, -! silent and asked for without that evidence, ? not read."]
    return "\n".join(lines)


def with_matrix(page: str, rows: Sequence[FrameworkSight]) -> str:
    """A Markdown page with the matrix between its two comment lines.

    Raises:
        ValueError: the page does not hold both comment lines.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"expected a page with the lines '{BEGIN}' and '{END}', got one without; add them")
    return f"{head}{BEGIN}\n\n{matrix_markdown(rows)}\n\n{END}{tail}"

"""The table in README.md, from the results."""

from pathlib import Path

from bench.rows import Row

__all__ = ["write_table"]

BEGIN, END = "<!-- results -->", "<!-- end of results -->"


def write_table(path: Path, environment: dict[str, str], rows: dict[str, list[dict]]) -> None:
    """Put the results between the two marks; what people wrote around them stays."""
    before, _, rest = path.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    lines = [BEGIN, "", "| what | goal | measured (quartiles, n) | result |", "|---|---|---|---|"]
    notes = []
    for row in (Row.model_validate(each) for group in rows.values() for each in group):
        sign = "<=" if row.better == "lower" else ">="
        goal = "-" if row.goal is None else f"{sign} {row.goal:g}{_unit(row)}"
        found = _spread(row)
        lines.append(f"| {row.name} | {goal} | {found} | {row.verdict} |")
        also = "; ".join(f"{name} {value:g}" for name, value in row.also.items())
        if text := " ".join(part for part in (row.note, f"{also}." if also else "") if part):
            notes.append(f"- *{row.name}*: {text}")
    environment_line = ", ".join(f"{name} {value}" for name, value in environment.items())
    lines += ["", *notes, "", f"Measured with {environment_line}.", "", END]
    path.write_text(before + "\n".join(lines) + after)


def _unit(row: Row) -> str:
    return "x" if row.unit == "x" else f" {row.unit}"


def _spread(row: Row) -> str:
    if row.median is None or row.quartiles is None:
        return "-"
    low, high = row.quartiles
    digits = 1 if row.median >= 3 else 2
    return f"{row.median:.{digits}f}{_unit(row)} ({low:.{digits}f}-{high:.{digits}f}, n = {row.n_repetitions})"

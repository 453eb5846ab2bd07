"""From the bytes of a file to one mapping per row, each with the line on which it starts."""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple, NoReturn

from auditgap.errors import DataError

__all__ = ["Document", "decode", "parse_csv", "parse_jsonl", "refuse"]

MAX_SHOWN = 10


class Document(NamedTuple):
    """One row as written, before anything is known of its fields."""

    line: int
    fields: dict[str, object]


def refuse(where: str, problems: Sequence[str], *, advice: str = "") -> NoReturn:
    """Raise one `DataError` that shows the first ten problems, the same one on many lines once, and counts the rest."""
    lines_of: dict[str, list[str]] = {}
    for problem in problems:
        line, _, what = problem.removeprefix("line ").partition(": ") if problem.startswith("line ") else ("", "", problem)
        lines_of.setdefault(what, []).append(line)
    shown = [f"\n  {_lines(lines)}{what}" for what, lines in list(lines_of.items())[:MAX_SHOWN]]
    rest = f"\n  and {len(lines_of) - MAX_SHOWN} more" if len(lines_of) > MAX_SHOWN else ""
    raise DataError(f"{where}: {len(problems)} problem{'s'[: len(problems) > 1]}{''.join(shown)}{rest}{advice}")


def _lines(lines: Sequence[str]) -> str:
    """`line 3: `, or `lines 3, 4, 5, ... (60 in all): `; nothing for a problem of the whole file."""
    if not lines[0]:
        return ""
    if len(lines) == 1:
        return f"line {lines[0]}: "
    more = f", ... ({len(lines)} in all)" if len(lines) > 5 else ""
    return f"lines {', '.join(lines[:5])}{more}: "


def decode(data: bytes, where: str) -> str:
    """The text of a file, which must be UTF-8, with or without a byte-order mark.

    Raises:
        DataError: it is not UTF-8, or there is nothing in it.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{where}: line {line}: expected UTF-8, got byte 0x{data[error.start]:02x}; save the file as UTF-8"
        ) from None
    if not text.strip():
        raise DataError(f"{where}: expected rows, got an empty file")
    return text


def parse_jsonl(text: str, problems: list[str]) -> list[Document]:
    """One JSON object a line; blank lines are skipped. What cannot be read is added to `problems`."""
    documents = []
    for line, written in enumerate(text.split("\n"), start=1):
        if not written.strip():
            continue
        try:
            value = parse_json(written)
        except ValueError as error:
            problems.append(f"line {line}: expected one JSON object, got {error}")
            continue
        if isinstance(value, dict):
            documents.append(Document(line, value))
        else:
            problems.append(f"line {line}: expected one JSON object, got {value!r:.60}")
    return documents


def parse_csv(text: str, known: Iterable[str], problems: list[str]) -> list[Document]:
    """One row a record, under a header of column names; an empty cell is an absent field, `messages` holds JSON."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    documents = []
    header: list[str] | None = None
    end = 0
    try:
        for cells in reader:
            line, end = end + 1, reader.line_num
            if not cells:
                continue
            if header is None:
                header = cells
                if len(set(header)) < len(header):
                    problems.append(f"line {line}: expected each column once, got {', '.join(header)}")
                    break
                if not set(header) & set(known):
                    problems.append(
                        f"line {line}: expected a header with columns of {', '.join(known)}, got {','.join(header)!r:.80}"
                    )
                    break
                continue
            if len(cells) != len(header):
                problems.append(f"line {line}: expected {len(header)} cells, as in the header, got {len(cells)}")
                continue
            documents.append(Document(line, _fields(header, cells, line, problems)))
    except csv.Error as error:
        problems.append(f"line {end + 1}: expected comma-separated cells, got {error}")
    return documents


def parse_json(written: str) -> object:
    """A JSON value without NaN and without repeated keys.

    Raises:
        ValueError: it is something else; the message says what.
    """
    try:
        return json.loads(written, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except json.JSONDecodeError as error:
        raise ValueError(f"{error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("JSON nested too deeply to read") from None


def _fields(header: Sequence[str], cells: Sequence[str], line: int, problems: list[str]) -> dict[str, object]:
    fields: dict[str, object] = {column: cell for column, cell in zip(header, cells, strict=True) if cell != ""}
    if isinstance(written := fields.get("messages"), str):
        try:
            fields["messages"] = parse_json(written)
        except ValueError as error:
            problems.append(f"line {line}: messages: expected JSON in the cell, got {error}")
    return fields


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name}, which is not JSON and not a measurement")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key '{repeated}' twice")
    return fields

"""Reading files that strangers wrote: every size is bounded before memory is spent, every surprise is a `DataError`.

1. A document is read whole, so its size is limited; lines are read one at a time, so only the line is.
2. JSON may hold NaN, because the tools write it; `number` refuses it wherever a number is needed. Repeated keys are refused.
"""

import datetime as dt
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, NoReturn

from auditgap.errors import DataError
from auditgap.records import FileDigest

__all__ = [
    "Json",
    "Limits",
    "count",
    "document",
    "file_digest",
    "finite",
    "first_bytes",
    "lines",
    "mapping",
    "number",
    "opened",
    "parse",
    "refuse",
    "sequence",
    "shown",
    "slug",
    "text",
    "when",
]

Json = dict[str, object]
MAX_TEXT = 1000


class Limits(NamedTuple):
    """The most that a log may cost to read; beyond it the log is refused, not cut."""

    document_bytes: int = 256 << 20
    """One JSON document, or one entry of an archive: it is parsed in memory."""
    line_bytes: int = 64 << 20
    """One line of a JSONL file, which as a whole may be of any size."""
    archive_bytes: int = 4 << 30
    """All entries of an archive together, inflated."""
    archive_entries: int = 200_000
    ratio: int = 500
    """How many times larger than its stored form an entry may be, once it is larger than `small_bytes`."""
    small_bytes: int = 1 << 20


# files


@contextmanager
def opened(path: Path) -> Iterator[io.BufferedReader]:
    """The file, with what the file system says of it turned into a `DataError`."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}; expected the log of an evaluation") from None


def first_bytes(path: Path, n: int) -> bytes:
    """The beginning of a file."""
    with opened(path) as file:
        return file.read(n)


def file_digest(path: Path) -> FileDigest:
    """Name, size and digest of a file of any size."""
    with opened(path):
        return FileDigest.of(path)


def document(path: Path, limits: Limits) -> Json:
    """A file that is one JSON object.

    Raises:
        DataError: it cannot be read, is too large, not UTF-8 or not JSON.
    """
    with opened(path) as file:
        data = file.read(limits.document_bytes + 1)
    if len(data) > limits.document_bytes:
        raise DataError(f"{path}: expected at most {limits.document_bytes:,} bytes of JSON, got more; export the log in parts")
    return mapping(parse(data, str(path)), str(path))


def lines(path: Path, limits: Limits) -> Iterator[tuple[str, Json]]:
    """Each line of a JSONL file as an object, with where it stands; blank lines are skipped.

    Raises:
        DataError: a line is too long, not UTF-8, not JSON or no object; the message names it.
    """
    with opened(path) as file:
        for number_ in range(1, 1 << 62):
            where = f"{path}: line {number_}"
            line = file.readline(limits.line_bytes + 1)
            if not line:
                return
            if len(line) > limits.line_bytes:
                raise DataError(f"{where}: expected at most {limits.line_bytes:,} bytes, got more; is this a JSONL report?")
            if line.strip():
                yield where, mapping(parse(line, where), where)


# values


def parse(data: bytes, where: str) -> object:
    """The JSON value in these bytes; NaN and infinities pass, repeated keys do not."""
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: expected UTF-8, got byte 0x{data[error.start]:02x} at position {error.start}; save it as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: expected JSON, got {error.msg} at character {error.pos} of {len(error.doc)}; "
            "a log that ends early is not read: get a whole copy"
        ) from None
    except RecursionError:
        raise DataError(f"{where}: expected a log, got JSON nested too deeply to read") from None
    except ValueError as error:
        raise DataError(f"{where}: expected JSON, got {error}") from None


def refuse(where: str, expected: str, got: object) -> NoReturn:
    """Raise the `DataError` of a field that is not what its format says."""
    raise DataError(f"{where}: expected {expected}, got {got!r:.80}; export the log again, or get a whole copy")


def mapping(value: object, where: str) -> Json:
    """`value`, if it is an object."""
    return value if isinstance(value, dict) else refuse(where, "an object", value)


def sequence(value: object, where: str) -> list[object]:
    """`value`, if it is a list."""
    return value if isinstance(value, list) else refuse(where, "a list", value)


def text(value: object, where: str) -> str:
    """`value`, if it is one line of text that may be shown: no control characters, no more than `MAX_TEXT` characters."""
    if isinstance(value, str) and value.isprintable() and len(value) <= MAX_TEXT:
        return value
    refuse(where, f"one line of text of at most {MAX_TEXT} characters", value)


def finite(value: object) -> float | None:
    """`value` as a number, truth values as 0 and 1; None for what is no number, NaN, infinite or about to be (1e300)."""
    return float(value) if isinstance(value, bool | int | float) and abs(value) < 1e300 else None


def number(value: object, where: str) -> float:
    """`value`, if it is a finite number or a truth value."""
    found = finite(value)
    return refuse(where, "a finite number", value) if found is None else found


def count(value: object, where: str) -> int:
    """`value`, if it is a whole number that is not negative."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
        return value
    refuse(where, "a whole number from 0", value)


def when(value: object, where: str) -> dt.datetime | None:
    """A time in ISO 8601 or in seconds since 1970, to the second; None for null or empty. Without a zone it is taken as UTC."""
    if value is None or value == "":
        return None
    try:
        seconds = None if isinstance(value, str) else finite(value)
        found = dt.datetime.fromisoformat(str(value)) if seconds is None else dt.datetime.fromtimestamp(seconds, dt.UTC)
        found = (found if found.tzinfo else found.replace(tzinfo=dt.UTC)).astimezone(dt.UTC).replace(microsecond=0)
    except (ValueError, OverflowError, OSError):
        refuse(where, "a time such as 2026-11-21T08:00:00Z", value)
    return found if found.year >= 1970 else refuse(where, "a time from 1970 on", value)


def shown(name: str) -> str:
    """`name` as it may go into a message: nothing in it steers a terminal."""
    return name if name.isprintable() else ascii(name)


def slug(name: str) -> str:
    """`name` as part of a measurement's name: lower case, everything but letters, digits, `_`, `-` and `.` becomes `_`."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-.") else "_" for c in name.lower()) or "_"


def _unique(pairs: list[tuple[str, object]]) -> Json:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
        raise ValueError(f"the key '{shown(repeated)}' twice in one object")
    return fields

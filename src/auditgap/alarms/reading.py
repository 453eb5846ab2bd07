"""Traffic that was recorded elsewhere: JSONL of our own, or OpenTelemetry's JSON, one line at a time.

1. A line is bounded, UTF-8 and one JSON object; anything else is refused, and the message names the line.
2. A line with `resourceSpans` or `resourceLogs` is a batch of OpenTelemetry (as its file exporter writes it) and gives a record
   for each span or log record of generative AI. Any other line is one record in our own form.
3. In our own form an unknown key is refused: a misspelt `reply` would otherwise be a stream that nobody watches.

| key | value |
|---|---|
| `request`, `reply` | text, or the messages of a chat, of which the last text counts |
| `stop` | why the model stopped, e.g. `stop`, `length`, `refusal` |
| `kind`, `adherence` | text |
| `tools` | names of the tools called |
| `reported` | true or false |
| `flags`, `scores` | mappings from a name to true or false, or to a number |
| `audit` | `{"probability": 0.1, "label": 1}`; label null where nobody looked |
| `release` | fingerprint of the release, `sha256:...` |
| `id`, `at` | not read |
"""

import json
from collections.abc import Iterator, Mapping
from typing import BinaryIO, NamedTuple, NoReturn

from auditgap.alarms.otel import is_fingerprint, is_otel, read_otel
from auditgap.alarms.signals import Audit, Traffic
from auditgap.data.documents import parse_json
from auditgap.errors import DataError, nearest
from auditgap.records.integrity import ADHERENCE

__all__ = ["KEYS", "MAX_LINE_BYTES", "Line", "read_lines", "read_row"]

MAX_LINE_BYTES = 16 << 20

KEYS = (
    "request",
    "reply",
    "stop",
    "kind",
    "adherence",
    "tools",
    "reported",
    "flags",
    "scores",
    "audit",
    "release",
    "id",
    "at",
)


class Line(NamedTuple):
    """One line and the records in it."""

    end: int
    """Bytes up to and including this line, counted from where reading began."""
    raw: bytes
    records: tuple[Traffic, ...]


def read_lines(stream: BinaryIO, name: str, *, first_line: int = 1, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Each line of a stream with its records, as soon as the line is there; blank lines have none.

    Raises:
        DataError: a line is too long, not UTF-8, no JSON object, or holds an unknown key or a value of the wrong type.
    """
    end, number = 0, first_line
    while raw := stream.readline(max_line_bytes + 1):
        where = f"{name}: line {number}"
        if len(raw) > max_line_bytes:
            raise DataError(f"{where}: expected at most {max_line_bytes:,} bytes, got more; is this one JSON object per line?")
        end, number = end + len(raw), number + 1
        yield Line(end, raw, _records(raw, where))


def read_row(row: Mapping[str, object], where: str) -> Traffic:
    """One record in our own form.

    Raises:
        DataError: an unknown key, or a value of the wrong type.
    """
    for key in row:
        if key not in KEYS:
            raise DataError(f"{where}: unknown key {key!r:.60}{nearest(key, KEYS)}")
    stop, reported = _text(row, "stop", where), row.get("reported")
    if reported is not None and not isinstance(reported, bool):
        _refuse(where, "reported", "true or false", reported)
    return Traffic(
        where=where,
        request=_said(row, "request", where),
        reply=_said(row, "reply", where),
        stops=() if stop is None else (stop,),
        kind=_text(row, "kind", where),
        tools=_tools(row, where),
        adherence=_adherence(row, where),
        reported=reported,
        flags={key: bool(value) for key, value in _mapping(row, "flags", where, bool, "true or false").items()},
        scores=_mapping(row, "scores", where, float, "a number"),
        audit=_audit(row, where),
        release=_release(row, where),
    )


def _records(raw: bytes, where: str) -> tuple[Traffic, ...]:
    if not raw.strip():
        return ()
    try:
        row = parse_json(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: expected UTF-8, got byte 0x{raw[error.start]:02x} at position {error.start}") from None
    except ValueError as error:
        hint = "" if raw.endswith(b"\n") else "; the line has no end: if it is still being written, run again later"
        raise DataError(f"{where}: expected one JSON object, got {error}{hint}") from None
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected one JSON object, got {row!r:.60}")
    return read_otel(row, where) if is_otel(row) else (read_row(row, where),)


def _refuse(where: str, key: str, expected: str, got: object) -> NoReturn:
    raise DataError(f"{where}: {key}: expected {expected}, got {json.dumps(got, default=str):.80}")


def _text(row: Mapping[str, object], key: str, where: str) -> str | None:
    value = row.get(key)
    return value if value is None or isinstance(value, str) else _refuse(where, key, "text", value)


def _said(row: Mapping[str, object], key: str, where: str) -> str | None:
    """Text, or the last text of a list of messages."""
    value = row.get(key)
    if not isinstance(value, list):
        return _text(row, key, where)
    for message in reversed(value):
        if not isinstance(message, dict) or not isinstance(message.get("content"), str):
            _refuse(where, key, "text, or messages with text as content", message)
        return message["content"]
    return None


def _tools(row: Mapping[str, object], where: str) -> tuple[str, ...] | None:
    value = row.get("tools")
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        _refuse(where, "tools", "a list of names", value)
    return tuple(value)


def _adherence(row: Mapping[str, object], where: str) -> str | None:
    value = _text(row, "adherence", where)
    if value is not None and value not in ADHERENCE:
        _refuse(where, "adherence", f"one of {', '.join(ADHERENCE)}", value)
    return value


def _mapping(row: Mapping[str, object], key: str, where: str, kind: type, expected: str) -> dict[str, float]:
    value = row.get(key, {})
    if not isinstance(value, dict):
        _refuse(where, key, "a mapping", value)
    for name, item in value.items():
        if isinstance(item, bool) != (kind is bool) or not isinstance(item, bool | int | float) or abs(item) > 1e300:
            _refuse(where, f"{key}.{name:.60}", expected, item)
    return {name: float(item) for name, item in value.items()}


def _audit(row: Mapping[str, object], where: str) -> Audit | None:
    value = row.get("audit")
    if value is None:
        return None
    if not isinstance(value, dict) or not set(value) <= {"probability", "label"} or "probability" not in value:
        _refuse(where, "audit", "a mapping with probability and label", value)
    numbers = {name: float(item) if isinstance(item, bool) else item for name, item in value.items() if item is not None}
    found = _mapping({"audit": numbers}, "audit", where, float, "a number")
    if not 0 < found.get("probability", 0.0) <= 1 or not 0 <= found.get("label", 0.0) <= 1:
        _refuse(where, "audit", "a probability in (0, 1] and a label in [0, 1] or null", value)
    return Audit(found["probability"], found.get("label"))


def _release(row: Mapping[str, object], where: str) -> str | None:
    value = _text(row, "release", where)
    return (
        value if value is None or is_fingerprint(value) else _refuse(where, "release", "sha256: and 64 hexadecimal digits", value)
    )

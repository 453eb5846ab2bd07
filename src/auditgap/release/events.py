"""The event stream of one run: calls, results, what each control said, and every fault that fired.

One stream for all injection points. Arguments and results are kept as digests: what a call moved is read from the effect ledger,
not from the transcript.
"""

import json
import os
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TextIO

from pydantic import Field, JsonValue

from auditgap.errors import PlanError, UsageError
from auditgap.records import Digest, Number, Record, canonical_json, digest_of

__all__ = ["Event", "EventKind", "EventLog", "append_privately", "read_events", "read_lines"]

EventKind = Literal[
    "intent",
    "call",
    "result",
    "list",
    "control",
    "approval",
    "audit",
    "redaction",
    "rollback",
    "monitor",
    "model_request",
    "model_response",
    "reply",
    "fault_fired",
]


class Event(Record):
    """Something that happened in a run, seen from outside the agent."""

    seq: int = Field(ge=0)
    at_ms: Number
    """Since the stream began."""
    kind: EventKind
    call_id: str | None = None
    tool: str | None = None
    server: str | None = None
    name: str | None = None
    """The control or fault that speaks."""
    outcome: str | None = None
    """What it said: `allowed`, `denied`, `ok`, `error`, ... or the kind of a fault."""
    content: Digest | None = None
    """Of the arguments, result or message in canonical form; the content itself is not kept."""
    detail: dict[str, JsonValue] = Field(default_factory=dict)


class EventLog:
    """Collects events in order, from any thread; with a path, each is also a line of that file as soon as it happens.

    `last` bounds what stays in memory, for streams that never end.

    Raises:
        UsageError: the file cannot be written.
    """

    def __init__(self, path: Path | None = None, *, last: int | None = None) -> None:
        self._events: deque[Event] = deque(maxlen=last)
        self._n = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()
        self._file = append_privately(path) if path else None

    def add(
        self,
        kind: EventKind,
        *,
        call_id: str | None = None,
        tool: str | None = None,
        server: str | None = None,
        name: str | None = None,
        outcome: str | None = None,
        content: JsonValue = None,
        detail: dict[str, JsonValue] | None = None,
    ) -> Event:
        """Append one event; `content` is reduced to its digest."""
        with self._lock:
            event = Event(
                seq=self._n,
                at_ms=round(1000 * (time.monotonic() - self._began), 3),
                kind=kind,
                call_id=call_id,
                tool=tool,
                server=server,
                name=name,
                outcome=outcome,
                content=None if content is None else digest_of(canonical_json(content)),
                detail=detail or {},
            )
            self._n += 1
            self._events.append(event)
            if self._file:
                self._file.write(event.model_dump_json() + "\n")
                self._file.flush()
        return event

    def events(self, kind: EventKind | None = None) -> tuple[Event, ...]:
        """What has happened so far, oldest first; the last of it if that is all that is kept."""
        with self._lock:
            return tuple(event for event in self._events if kind in (None, event.kind))

    def close(self) -> None:
        """Close the file; the events stay readable."""
        if self._file:
            self._file.close()
            self._file = None


def append_privately(path: Path) -> TextIO:
    """The file, open for appending and, if it is new, readable by its owner alone: prompts and tool names are nobody else's.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        return open(path, "a", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600))
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}; name a file in a folder that exists") from None


def read_events(path: Path) -> tuple[Event, ...]:
    """The events of a stream's file.

    Raises:
        PlanError: a line is not an event.
    """
    return tuple(Event.parse(document, where=where) for where, document in read_lines(path))


def read_lines(path: Path) -> Iterator[tuple[str, JsonValue]]:
    """Each JSON line of a file with the place where it stands.

    Raises:
        PlanError: the file cannot be read as UTF-8 text, or a line is not JSON.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"cannot read {path}: {error}") from None
    for number, line in enumerate(lines, start=1):
        try:
            yield f"{path}:{number}", json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            raise PlanError(f"{path}:{number}: expected a line of JSON, got {line[:60]!r} ({error})") from None

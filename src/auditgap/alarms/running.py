"""Watching a file or a pipe, with a checkpoint from which a killed watch goes on as if nothing had happened.

1. Every thousand lines or five seconds, at every alarm and at the end the checkpoint is replaced as a whole.
2. An alarm is in the checkpoint before it is handed on, and is marked when that is done: one that was cut off in between is
   handed on again, as the same bytes. A ledger that knows it already does not write it twice.
3. A file is known by its first line. The same file is read from where the watch stopped, and what was read last must still be
   there; another file (the next day's) is read from its beginning, as more of the same streams.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pydantic import Field, ValidationError

from auditgap.alarms.reading import MAX_LINE_BYTES, read_lines
from auditgap.alarms.streams import AlarmPolicy
from auditgap.alarms.watching import StreamStatus, Watch, WatchState
from auditgap.errors import DataError, StoreError
from auditgap.records import Digest, Record, digest_of, explain
from auditgap.records.alarm import Alarm

__all__ = ["Checkpoint", "WatchResult", "read_checkpoint", "watch_traffic"]

EVERY_LINES, EVERY_SECONDS = 1000, 5.0


class Checkpoint(Record):
    """A watch and where in its input it stands."""

    watch: WatchState
    line: int = Field(default=0, ge=0)
    """Lines of the current input that were read."""
    position: int = Field(default=0, ge=0)
    """Bytes of them."""
    first: Digest | None = None
    """Of the input's first line; None for a pipe or before the first line."""
    last: Digest | None = None
    """Of the last line that was read."""
    last_bytes: int = Field(default=0, ge=0)
    n_handed_on: int = Field(default=0, ge=0)
    """Alarms that were handed on, e.g. to a ledger."""


class WatchResult(Record):
    """How a watch stands at the end of its input."""

    policy: Digest
    n_records: int
    """Of traffic, in all runs of this watch."""
    alarms: tuple[Alarm, ...]
    """Raised in this run."""
    streams: tuple[StreamStatus, ...]

    @property
    def exit_code(self) -> int:
        """1 if an alarm was raised or stands, 3 if a stream never had a value, else 0."""
        if self.alarms or any(stream.is_alarmed for stream in self.streams):
            return 1
        return 3 if any(stream.n == 0 for stream in self.streams) else 0


def watch_traffic(
    policy: AlarmPolicy,
    source: str,
    *,
    state: Path | None = None,
    on_alarm: Callable[[Alarm], object] = lambda alarm: None,
    max_line_bytes: int = MAX_LINE_BYTES,
) -> WatchResult:
    """Read traffic to its end and hand each alarm on as it is raised.

    Args:
        policy: the streams, declared before the first event.
        source: a file of JSON lines, or `-` for standard input, which is followed for as long as it is open.
        state: file of the checkpoint; None forgets everything at the end.
        on_alarm: called once per alarm; after a kill perhaps again, with the same alarm.
        max_line_bytes: a longer line is refused before it is read.

    Raises:
        DataError: the input or the state cannot be read; everything before the line at fault is counted and kept.
        RegistrationError: the state was made under another policy.
    """
    found = read_checkpoint(state) if state is not None else None
    watch = Watch(policy, found.watch if found else None)
    keeper = _Keeper(watch, state, found, on_alarm)
    keeper.hand_on()
    n_before = len(watch.alarms)
    with _opened(source, keeper) as stream:
        try:
            for line in read_lines(stream, Path(source).name, first_line=keeper.line + 1, max_line_bytes=max_line_bytes):
                watch.observe(*line.records)
                keeper.advance(line.raw)
        except DataError:
            keeper.save()  # what came before the line at fault is whole
            raise
        keeper.save()
    new = tuple(watch.alarms[n_before:])
    return WatchResult(policy=watch.digest, n_records=watch.n_records, alarms=new, streams=watch.status())


def read_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint in a file; None if there is no file.

    Raises:
        DataError: it cannot be read, or is not a whole checkpoint.
    """
    try:
        return Checkpoint.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DataError(f"cannot read the state {path}: {error.strerror or error}") from None
    except ValidationError as error:
        raise DataError(
            f"{path}: expected the state of a watch, got: {explain(error, Checkpoint)[:300]}; restore it from a copy, or "
            "start anew with another file: all streams then begin at 0"
        ) from None


class _Keeper:
    """Where the watch stands in its input, and the file that says so."""

    def __init__(self, watch: Watch, path: Path | None, found: Checkpoint | None, on_alarm: Callable[[Alarm], object]) -> None:
        self._watch, self._path, self._on_alarm = watch, path, on_alarm
        self._n_handed_on = found.n_handed_on if found else 0
        self._n_saved = found.line if found else 0
        self.line = found.line if found else 0
        self.position = found.position if found else 0
        self.first = found.first if found else None
        self._last = (found.last, found.last_bytes) if found else (None, 0)
        self._raw: bytes | None = None
        self._saved_at = time.monotonic()

    def piped(self) -> None:
        """A pipe begins where it begins: what comes is new."""
        self.line = self.position = self._n_saved = 0
        self.first, self._last = None, (None, 0)

    def resume(self, file: BinaryIO, name: str) -> None:
        """Go to where this file was left, or to the beginning of another one.

        Raises:
            DataError: it is the same file, but no longer holds what was read.
        """
        first = file.readline(MAX_LINE_BYTES + 1).rstrip(b"\r\n")  # its end may come later than the rest of it
        if not self.position or digest_of(first) != self.first:
            self.line = self.position = self._n_saved = 0
            self.first, self._last = digest_of(first), (None, 0)
            file.seek(0)
            return
        last, n_bytes = self._last
        file.seek(self.position - n_bytes)
        if digest_of(file.read(n_bytes)) != last:
            raise DataError(
                f"{name}: expected the file that was read up to line {self.line} (byte {self.position:,}), got one that is "
                "shorter or differs there; bring it back, or watch the new one with another state"
            )

    def advance(self, raw: bytes) -> None:
        """Count a line; keep the checkpoint if it is time or an alarm is new."""
        self.line += 1
        self.position += len(raw)
        self._raw = raw
        if len(self._watch.alarms) > self._n_handed_on:
            self.save()
            self.hand_on()
            self.save()
        elif self.line - self._n_saved >= EVERY_LINES or time.monotonic() - self._saved_at > EVERY_SECONDS:
            self.save()

    def hand_on(self) -> None:
        """Hand on every alarm that has not been, oldest first."""
        while self._n_handed_on < len(self._watch.alarms):
            self._on_alarm(self._watch.alarms[self._n_handed_on])
            self._n_handed_on += 1

    def save(self) -> None:
        """Replace the checkpoint as a whole: whoever reads it sees the old one or the new one."""
        if self._path is None:
            return
        last = self._last if self._raw is None else (digest_of(self._raw), len(self._raw))
        checkpoint = Checkpoint(
            watch=self._watch.state(),
            line=self.line,
            position=self.position,
            first=self.first,
            last=last[0],
            last_bytes=last[1],
            n_handed_on=self._n_handed_on,
        )
        new = self._path.with_name(self._path.name + ".new")
        try:
            with new.open("w", encoding="utf-8") as file:
                file.write(checkpoint.model_dump_json() + "\n")
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        except OSError as error:
            raise StoreError(f"cannot write the state {self._path}: {error.strerror or error}; the watch stops here") from None
        self._n_saved, self._saved_at = self.line, time.monotonic()


@contextmanager
def _opened(source: str, keeper: _Keeper) -> Iterator[BinaryIO]:
    """The input, at the place from which to read on."""
    if source == "-":
        keeper.piped()
        yield sys.stdin.buffer
        return
    try:
        file = Path(source).open("rb")  # noqa: SIM115  closed below; what goes wrong in the caller's block is not about this file
    except OSError as error:
        raise DataError(f"cannot read {source}: {error.strerror or error}; expected a file of JSON lines, or -") from None
    with file:
        keeper.resume(file, source)
        yield file

"""The request ledger: two lines for every request, on disk before anybody is told.

1. `begun` is durable before the request reaches the model, `ended` before the last byte of its answer leaves. So no text is ever
   out of which the ledger knows nothing.
2. One thread writes. It takes all lines that wait, writes them at once and asks the disk once (`fdatasync`), so that requests
   that end together share the wait.
3. A process that is killed leaves at most half a line at the end, which nobody was told of: it is moved to `FILE.torn`. What had
   begun and did not end gets its `ended` line, with the outcome `lost`, when the file is next opened.

JSON lines rather than a database: appending is the only thing that is ever done to it, and any tool that follows a file can read
it while it grows. A lock keeps a second server out. Content is not written unless asked for; a digest hides a long text, but
whoever can guess a text can check the guess.
"""

import fcntl
import json
import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue, ValidationError

from auditgap.errors import StoreError
from auditgap.records import now
from auditgap.serving.entries import Begun, Ended

__all__ = ["RequestLedger", "read_ledger", "traffic"]

Then = Callable[[OSError | None], object]


class _Waiting(NamedTuple):
    line: bytes
    then: Then


class RequestLedger:
    """An open ledger file, and the thread that writes it.

    Raises:
        StoreError: the file cannot be written, another server has it, or a line in it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.failed: OSError | None = None
        """Why nothing can be written any more; a ledger that has failed once stays so."""
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            raise StoreError(f"expected a request ledger that can be written, got {path} ({error.strerror})") from None
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.n_recovered = _recover(self._file, path)
            """Requests that a killed process had begun."""
        except BlockingIOError:
            os.close(self._file)
            raise StoreError(f"{path}: another server writes this ledger; give each its own") from None
        except BaseException:
            os.close(self._file)
            raise
        self._waiting: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="auditgap-ledger", daemon=True)
        self._thread.start()

    def append(self, line: Begun | Ended, then: Then) -> None:
        """Write a line; `then` is called from the writing thread when it is on the disk, or with the reason why it is not."""
        self._waiting.put(_Waiting(_encode(line), then))

    def close(self) -> None:
        """Write what waits, and close; harmless if closed already."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()
            os.close(self._file)

    def _write_all(self) -> None:
        closing = False
        while not closing:
            taken = [self._waiting.get()]
            while not self._waiting.empty():
                taken.append(self._waiting.get())
            closing = None in taken
            group = [waiting for waiting in taken if waiting is not None]
            self._write(b"".join(waiting.line for waiting in group))
            for waiting in group:
                with suppress(RuntimeError):  # the event loop of whoever asked has closed
                    waiting.then(self.failed)

    def _write(self, data: bytes) -> None:
        if not data or self.failed is not None:
            return
        end = os.fstat(self._file).st_size
        try:
            _write_whole(self._file, data)
        except OSError as error:
            self.failed = error
            os.ftruncate(self._file, end)


def read_ledger(path: Path) -> Iterator[Begun | Ended]:
    """Every line; half a line at the end is left out.

    Raises:
        StoreError: the file cannot be read, or a line is damaged.
    """
    try:
        with path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if raw.endswith(b"\n"):
                    yield _parse(raw, f"{path}: line {number}")
    except OSError as error:
        raise StoreError(f"expected a request ledger, got {path} ({error.strerror})") from None


def traffic(path: Path, *, tenant: str | None = None) -> Iterator[dict[str, JsonValue]]:
    """Each ended request as `auditgap monitor watch` reads it; of one tenant, if one is named."""
    asked: dict[str, JsonValue] = {}
    for line in read_ledger(path):
        if isinstance(line, Begun):
            asked[line.id] = line.content
            continue
        request = asked.pop(line.id, None)
        if tenant is None or line.tenant == tenant:
            yield _row(line, request)


def _row(line: Ended, request: JsonValue) -> dict[str, JsonValue]:
    row: dict[str, JsonValue] = {"id": line.id, "at": line.at.isoformat(), "release": line.release, "stop": line.outcome}
    row["scores"] = {verdict.monitor: verdict.score for verdict in line.verdicts if verdict.score is not None}
    row["flags"] = {verdict.monitor: verdict.flagged for verdict in line.verdicts if not verdict.down}
    if request is not None:
        row["request"] = request
    if line.content is not None:
        row["reply"] = line.content
    return row


def _encode(line: Begun | Ended) -> bytes:
    return line.model_dump_json().encode() + b"\n"


def _parse(raw: bytes, where: str) -> Begun | Ended:
    try:
        kind = Begun if json.loads(raw)["event"] == "begun" else Ended
        return kind.model_validate_json(raw)
    except (ValueError, KeyError, TypeError) as error:
        what = f"{error.error_count()} fields are wrong" if isinstance(error, ValidationError) else str(error)
        raise StoreError(f"{where}: expected a line of a request ledger, got {raw[:60]!r} ({what})") from None


def _recover(file: int, path: Path) -> int:
    """Move half a line away, and end what had begun; how many those were."""
    whole, torn = _split(path)
    if torn:
        with path.with_name(path.name + ".torn").open("ab") as kept:
            kept.write(torn + b"\n")
        os.ftruncate(file, whole)
    running: dict[str, Begun] = {}
    for line in read_ledger(path):
        if isinstance(line, Begun):
            running[line.id] = line
        else:
            running.pop(line.id, None)
    reason = "the server stopped without ending it"
    lost = [
        Ended(
            id=b.id, tenant=b.tenant, at=now(), release=b.release, outcome="lost", reason=reason, n_input_tokens=b.n_input_tokens
        )
        for b in running.values()
    ]
    if lost:
        _write_whole(file, b"".join(_encode(line) for line in lost))
    return len(lost)


def _split(path: Path) -> tuple[int, bytes]:
    """Bytes of whole lines, and what follows them."""
    with path.open("rb") as file:
        size = end = file.seek(0, os.SEEK_END)
        tail = b""
        while end and b"\n" not in tail:
            start = max(0, end - (1 << 20))
            file.seek(start)
            tail, end = file.read(end - start) + tail, start
    torn = tail[tail.rfind(b"\n") + 1 :]
    return size - len(torn), torn


def _write_whole(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
    os.fdatasync(file)

"""Reading an endpoint's answer while it passes: event by event, within limits, and what was in it."""

import hashlib
import json
from collections.abc import AsyncIterator

from pydantic import JsonValue

from auditgap.release.injection.hosting import TooLargeError
from auditgap.release.injection.model_wire import Document, Wire, answered, calls, events, finish, payload

__all__ = ["Transcript", "encoded", "split"]

_LARGEST_EVENT = 4 * 2**20


class Transcript:
    """What was delivered: its digest, and the tool calls and the ending that were read in passing."""

    def __init__(self, wire: Wire | None, *, streamed: bool) -> None:
        self.n_bytes = 0
        self.tools: list[JsonValue] = []
        self.finish: str | None = None
        self._wire: Wire | None = wire
        self._streamed = streamed
        self._unread = bytearray()
        self._sha256 = hashlib.sha256()

    def add(self, part: bytes) -> None:
        self.n_bytes += len(part)
        self._sha256.update(part)
        if self._wire:
            self._unread += part
        if self._streamed and self._wire:
            complete, rest = events(bytes(self._unread))
            self._unread = bytearray(rest[-_LARGEST_EVENT:])
            for event in complete:
                self._read(self._wire, payload(event))

    @property
    def read(self) -> bool:
        """False for what is not of a known format, or compressed: then no tool call could be seen."""
        return self._wire is not None

    def sha256(self) -> str:
        if self._wire and not self._streamed:
            self._read(self._wire, answered(bytes(self._unread)))
            self._unread.clear()
        return f"sha256:{self._sha256.hexdigest()}"

    def _read(self, wire: Wire, document: Document | None) -> None:
        if document is not None:
            self.tools += [call["name"] for call in calls(wire, document)]
            self.finish = finish(wire, document) or self.finish


async def split(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The server-sent events of a body, byte for byte; what follows the last one comes last."""
    rest = b""
    async for part in parts:
        complete, rest = events(rest + part)
        if len(rest) > _LARGEST_EVENT:
            raise TooLargeError(f"sent an event of more than {_LARGEST_EVENT} bytes")
        for event in complete:
            yield event
    if rest:
        yield rest


def encoded(event: bytes, documents: list[Document]) -> bytes:
    """An event with other data; its type is named again where it was named."""
    named = any(line.startswith(b"event:") for line in event.splitlines())
    heads = [f"event: {document.get('type')}\n" if named else "" for document in documents]
    bodies = [json.dumps(document) for document in documents]
    return "".join(f"{head}data: {body}\n\n" for head, body in zip(heads, bodies, strict=True)).encode()

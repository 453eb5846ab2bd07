"""A request on its way through the worker: what it asks, what was said so far, and how it ended."""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from auditgap.monitor import Watched
from auditgap.records.monitor import Action
from auditgap.serving.decoding import Sampling
from auditgap.serving.entries import Outcome

__all__ = ["Finished", "Job"]


class Finished(NamedTuple):
    """How a request ended, and what was seen of it."""

    outcome: Outcome
    reason: str = ""
    text: str = ""
    n_output_tokens: int = 0
    intervention: Action | None = None
    watched: tuple[Watched, ...] = ()
    queued_ms: float | None = None
    first_token_ms: float | None = None
    total_ms: float = 0.0


class Job:
    """A request on its way through the worker; made in the event loop that waits for it."""

    def __init__(self, name: str, tenant: str, prompt: Sequence[int], sampling: Sampling, stops: Sequence[str]) -> None:
        self.name, self.tenant, self.prompt, self.sampling, self.stops = name, tenant, prompt, sampling, stops
        self.cut = ""
        """Why it shall end before its time; empty if it shall not."""
        self.began = time.monotonic()
        self.finished: asyncio.Future[Finished] = asyncio.get_running_loop().create_future()
        """Set once the ledger has its line."""
        self.created_at = int(time.time())
        self._loop = asyncio.get_running_loop()
        self._news, self._unread = asyncio.Event(), deque[str]()

    def say(self, text: str) -> None:
        """Hand text to the reader; from the worker's thread."""
        self._unread.append(text)
        self._loop.call_soon_threadsafe(self._news.set)

    def settle(self, finished: Finished | Exception) -> None:
        """Tell the reader that it is over; from any thread. Nobody may be left to hear it."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._settle, finished)

    async def read(self) -> str | None:
        """All text since the last time, as soon as there is any; None when nothing more will come."""
        while not self._unread and not self.finished.done():
            await self._news.wait()
            self._news.clear()
        said = "".join(self._unread.popleft() for _ in range(len(self._unread)))
        return said or None

    @property
    def age_ms(self) -> float:
        """Milliseconds since it was made."""
        return 1000 * (time.monotonic() - self.began)

    def _settle(self, finished: Finished | Exception) -> None:
        if not self.finished.done():
            if isinstance(finished, Exception):
                self.finished.set_exception(finished)
            else:
                self.finished.set_result(finished)
        self._news.set()

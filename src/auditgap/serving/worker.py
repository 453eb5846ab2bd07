"""The one thread that runs the model, under the monitors' eyes.

1. Requests wait in one line per tenant; a batch takes one of each tenant in turn until it is full or nobody came for 5 ms, so
   that a tenant with many waiting does not come before one with few.
2. A batch runs until its last row has ended. A row is told of its end, with its scores, in the pass in which it ends.
3. A row that is cut (client gone, time limit, shutdown) ends at the next pass; a batch of which every row was cut stops there.

Tokens are handed over as text without a wait: what a slow reader has not fetched yet is one string, no longer than the reply.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

from auditgap.models import Model
from auditgap.monitor import Monitor, Watch, Watched, watching
from auditgap.records.monitor import MonitorPolicy
from auditgap.serving.decoding import Reply, Step, decode, decoder
from auditgap.serving.entries import Outcome
from auditgap.serving.jobs import Finished, Job

__all__ = ["Worker"]

_log = logging.getLogger("auditgap.serving")
GATHER_S = 0.005
"""How long a batch that is not full waits for requests that come at the same time; a second pass would cost more."""


OnEnd = Callable[[Job, Finished], None]


class Worker:
    """The model, its monitors and the line of those who wait; `on_end` hears, in the worker's thread, of every job's end."""

    def __init__(
        self, model: Model, monitors: Sequence[Monitor], policy: MonitorPolicy, *, batch_size: int, on_end: OnEnd
    ) -> None:
        self.model, self.monitors, self.policy, self.batch_size = model, tuple(monitors), policy, batch_size
        self._on_end, self._lines = on_end, dict[str, deque[Job]]()
        self._changed, self._closing = threading.Condition(), False
        self._attached, self._refused = threading.Event(), list[Exception]()
        self._thread = threading.Thread(target=self._run, name="auditgap-model", daemon=True)

    @property
    def is_alive(self) -> bool:
        """Whether anybody serves the line."""
        return self._thread.is_alive()

    def start(self) -> None:
        """Attach the monitors and begin.

        Raises:
            CannotMeasure: a monitor is down and the policy refuses to go on without it.
            UsageError: the policy does not fit the model.
        """
        self._thread.start()
        self._attached.wait()
        if self._refused:
            raise self._refused[0]

    def submit(self, job: Job) -> None:
        """Put a job into its tenant's line."""
        with self._changed:
            self._lines.setdefault(job.tenant, deque()).append(job)
            self._changed.notify()

    def cut(self, job: Job, reason: str) -> None:
        """End a job before its time: at once if it waits, at the next token if it runs."""
        job.cut = job.cut or reason
        with self._changed:
            line = self._lines.get(job.tenant)
            waited = line is not None and job in line
            if line is not None and waited:
                line.remove(job)
                if not line:
                    del self._lines[job.tenant]
        if waited:
            self._on_end(job, Finished("cut", job.cut, total_ms=job.age_ms))

    def close(self) -> None:
        """Stop after the batch that runs; what still waits is cut."""
        with self._changed:
            self._closing = True
            waiting = [job for line in self._lines.values() for job in line]
            self._changed.notify()
        for job in waiting:
            self.cut(job, "the server stops")
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._watching() as watch:
                self._attached.set()
                while batch := self._take():
                    self._serve(batch, watch)
        except Exception as error:  # told by `start`, or by readiness
            self._refused.append(error)
        finally:
            self._attached.set()

    def _watching(self) -> AbstractContextManager[Watch | None]:
        return watching(self.model, self.monitors, self.policy) if self.monitors else nullcontext()

    def _take(self) -> list[Job]:
        """The next batch, one of each tenant in turn; empty when the worker closes."""
        with self._changed:
            while not self._closing:
                self._changed.wait_for(lambda: self._closing or self._lines)
                self._changed.wait_for(lambda: self._closing or self._n_waiting >= self.batch_size, timeout=GATHER_S)
                if self._lines and not self._closing:  # who waited may have been cut meanwhile
                    return [self._next() for _ in range(min(self.batch_size, self._n_waiting))]
            return []

    def _next(self) -> Job:
        tenant = next(iter(self._lines))
        line = self._lines.pop(tenant)
        job = line.popleft()
        if line:
            self._lines[tenant] = line  # at the end: its turn comes again when all others had theirs
        return job

    @property
    def _n_waiting(self) -> int:
        return sum(len(line) for line in self._lines.values())

    def _serve(self, batch: list[Job], watch: Watch | None) -> None:
        rows = _Batch(self.model, self.policy, batch, watch, self._on_end)
        try:
            for steps in decode(self.model, [job.prompt for job in batch], [job.sampling for job in batch], rows.running):
                rows.absorb(steps)
        except Exception as error:  # whatever the model raises: these requests fail, the next ones are served
            _log.error("%s in the model; %d requests failed", type(error).__name__, sum(rows.running))
            rows.fail(type(error).__name__)
        finally:
            if watch is not None:
                watch.take()


class _Batch:
    """The replies of one batch so far."""

    def __init__(self, model: Model, policy: MonitorPolicy, jobs: list[Job], watch: Watch | None, on_end: OnEnd) -> None:
        self.running = [True] * len(jobs)
        self._jobs, self._policy, self._watch, self._on_end = jobs, policy, watch, on_end
        self._replies = [Reply(decoder(model), job.prompt, job.stops) for job in jobs]
        self._n_tokens = [0] * len(jobs)
        self._taken_at = time.monotonic()
        self._first_at: float | None = None

    def absorb(self, steps: list[Step]) -> None:
        """One more token of every row that runs."""
        self._first_at = self._first_at or time.monotonic()
        running = [row for row, runs in enumerate(self.running) if runs]
        ended: list[tuple[int, Outcome]] = [(row, how) for row in running if (how := self._add(row, steps[row]))]
        if ended:
            seen = self._seen()
            for row, outcome in ended:
                self._end(row, outcome, seen.get(row, ()))

    def fail(self, reason: str) -> None:
        """End every row that still runs: the model raised."""
        seen = self._seen()
        for row, job in enumerate(self._jobs):
            if self.running[row]:
                job.cut = reason
                self._end(row, "failed", seen.get(row, ()))

    def _add(self, row: int, step: Step) -> Outcome | None:
        """Add a token to a row; how the row ends, if it does."""
        job, reply = self._jobs[row], self._replies[row]
        if job.cut:
            return "cut"
        if step.is_forced and self._policy.action in ("stop", "refuse", "escalate"):
            return "content_filter"
        if step.is_end:
            return "stop"
        self._n_tokens[row] += 1
        said = reply.update(step.token)
        if said:
            job.say(said)
        if reply.is_stopped:
            return "stop"
        return "length" if self._n_tokens[row] >= job.sampling.max_new_tokens else None

    def _end(self, row: int, outcome: Outcome, watched: tuple[Watched, ...]) -> None:
        job, reply = self._jobs[row], self._replies[row]
        self.running[row] = False
        said = "" if outcome in ("cut", "failed") else reply.finish()
        instead = self._instead(reply) if outcome == "content_filter" else ""
        if said or instead:
            job.say(said + instead)
        steered = self._policy.action == "steer" and any(each.flagged for each in watched)
        finished = Finished(
            outcome,
            job.cut if outcome in ("cut", "failed") else "",
            text=reply.text + instead,
            n_output_tokens=self._n_tokens[row],
            intervention=self._policy.action if outcome == "content_filter" or steered else None,
            watched=watched,
            queued_ms=1000 * (self._taken_at - job.began),
            first_token_ms=None if self._first_at is None else 1000 * (self._first_at - job.began),
            total_ms=job.age_ms,
        )
        self._on_end(job, finished)

    def _instead(self, reply: Reply) -> str:
        """What the policy says in place of the rest of a reply: a paragraph of its own where the reply had begun."""
        text = "" if self._policy.action == "stop" else self._policy.text
        return f"\n\n{text}" if text and reply.text else text

    def _seen(self) -> dict[int, tuple[Watched, ...]]:
        """What the monitors say of each row now."""
        found: dict[int, tuple[Watched, ...]] = {}
        seen = self._watch.requests() if self._watch is not None else []
        for watched in seen:
            row = watched.request - seen[0].request
            found[row] = (*found.get(row, ()), watched)
        return found

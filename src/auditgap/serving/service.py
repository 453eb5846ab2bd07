"""From a request that was read to an answer that may leave: who may ask, what it costs, what is written down.

1. The tenant is known, has requests left in its minute and a place, and the line is not full: else 401, 429 or 503.
2. The body is bounded and read within a time; the prompt is bounded in tokens.
3. `begun` is on the disk; then the model may see the prompt.
4. When the last row of text is there, `ended` goes to the disk; then the reader hears that it is over.

Nothing here is shared between tenants but the model, the line and the ledger file: each has its own limits, and a job knows its
own text and scores only.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import jinja2
from opentelemetry._logs import SeverityNumber
from pydantic import Field, JsonValue

from auditgap.data import Prompt
from auditgap.errors import UsageError
from auditgap.models.tokens import prompt_ids
from auditgap.records import Digest, Record, canonical_json, digest_of, now
from auditgap.serving.entries import Begun, Ended, Verdict
from auditgap.serving.jobs import Finished, Job
from auditgap.serving.ledger import RequestLedger
from auditgap.serving.replies import ApiError, Seen
from auditgap.serving.telemetry import Telemetry
from auditgap.serving.tenants import Tenant, Usage, authenticate
from auditgap.serving.wire import Chat, Completion
from auditgap.serving.worker import Worker

__all__ = ["Service", "Settings"]

_log = logging.getLogger("auditgap.serving")
_RETRY_S = 1.0


class Settings(Record):
    """Bounds of the server as a whole."""

    name: str = Field(min_length=1)
    """Under which the model is asked for."""
    release: Digest
    """Fingerprint of what is served."""
    max_waiting: int = Field(default=64, ge=0)
    """Requests beyond those of one batch."""
    request_timeout_s: float = Field(default=300.0, gt=0)
    """From acceptance to the last token."""
    body_timeout_s: float = Field(default=15.0, gt=0)
    send_timeout_s: float = Field(default=15.0, gt=0)
    """How long a reader may take to make room for the next piece."""
    keep_content: bool = False
    """Write prompts and replies into the ledger."""


class Service:
    """A worker, its tenants and its ledger. No tenants: everybody is `everybody`."""

    def __init__(
        self,
        settings: Settings,
        worker: Worker,
        ledger: RequestLedger,
        telemetry: Telemetry,
        *,
        tenants: Sequence[Tenant] = (),
        everybody: Tenant | None = None,
    ) -> None:
        self.settings, self.worker, self.ledger, self.telemetry = settings, worker, ledger, telemetry
        self.started_at = int(time.time())
        self.stopping = False
        self.n_admitted = 0
        self._tenants, self._everybody = tuple(tenants), everybody
        held = [*tenants, *([everybody] if everybody else [])]
        self._usage = {tenant.name: Usage(tenant) for tenant in held}
        self._tokenizing = ThreadPoolExecutor(1, "auditgap-tokenizer")
        self._running = set[Job]()

    @property
    def state(self) -> str:
        """`ready`, or why it is not."""
        if self.stopping:
            return "stopping"
        if self.ledger.failed is not None:
            return "the ledger cannot be written"
        return "ready" if self.worker.is_alive else "the model's thread has ended"

    @property
    def is_open(self) -> bool:
        """Whether everybody on this machine may ask."""
        return self._everybody is not None

    def tenant(self, header: str | None) -> Tenant:
        """Who asks.

        Raises:
            ApiError: 401, the token is nobody's.
        """
        found = self._everybody or authenticate(self._tenants, header)
        if found is None:
            self.telemetry.control("token", "denied")
            message = "expected a header 'Authorization: Bearer TOKEN' with a token that this server knows"
            raise ApiError(401, message, type="authentication_error", code="invalid_api_key")
        return found

    @contextmanager
    def admitted(self, tenant: Tenant) -> Iterator[None]:
        """A place for one request.

        Raises:
            ApiError: 503, the server is not ready; 429, the tenant or the server has no room.
        """
        usage = self._usage[tenant.name]
        if self.state != "ready":
            raise ApiError(503, f"not ready: {self.state}", type="server_error", code="not_ready", retry_after_s=_RETRY_S)
        if usage.n_running >= tenant.concurrent:
            raise self._busy("concurrent", f"{tenant.concurrent} requests of this token are under way", _RETRY_S)
        if self.n_admitted >= self.settings.max_waiting + self.worker.batch_size:
            raise self._busy("queue", "too many requests wait for the model", _RETRY_S)
        if wait_s := usage.wait_s():
            raise self._busy("rate", f"{tenant.requests_per_minute} requests per minute are allowed", wait_s)
        self.n_admitted, usage.n_running = self.n_admitted + 1, usage.n_running + 1
        try:
            yield
        finally:
            self.n_admitted, usage.n_running = self.n_admitted - 1, usage.n_running - 1

    async def begin(self, tenant: Tenant, asked: Chat | Completion) -> Job:
        """Tokenise, write `begun`, and put the request into the line.

        Raises:
            ApiError: the model is another, the prompt does not fit, or the ledger cannot be written.
        """
        if asked.model != self.settings.name:
            message = f"no model '{asked.model[:100]}' here; it is '{self.settings.name}'"
            raise ApiError(404, message, type="invalid_request_error", code="model_not_found", param="model")
        prompt = asked.prompt()
        ids = await self._tokenised(prompt)
        sampling = asked.sampling(limit=self._limit(tenant, len(ids), asked.most_tokens()), seed=secrets.randbits(32))
        name = f"{'chatcmpl' if asked.operation == 'chat' else 'cmpl'}-{secrets.token_hex(16)}"
        job = Job(name, tenant.name, ids, sampling, asked.stops)
        said = _plain(prompt)
        begun = Begun(
            id=name,
            tenant=tenant.name,
            at=now(),
            release=self.settings.release,
            operation=asked.operation,
            request=digest_of(said.encode() if isinstance(said, str) else canonical_json(said)),
            n_input_tokens=len(ids),
            max_new_tokens=sampling.max_new_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=sampling.seed,
            content=said if self.settings.keep_content else None,
        )
        await self._write(begun)
        self._running.add(job)
        job.finished.add_done_callback(lambda _: self._running.discard(job))
        self.worker.submit(job)
        return job

    def ended(self, job: Job, finished: Finished) -> None:
        """Write `ended`, then tell the reader; from the worker's thread, or the loop's for a job that never ran."""
        verdicts = tuple(Verdict.of(watched) for watched in finished.watched)
        line = Ended(
            id=job.name,
            tenant=job.tenant,
            at=now(),
            release=self.settings.release,
            outcome=finished.outcome,
            reason=finished.reason,
            intervention=finished.intervention,
            verdicts=verdicts,
            coverage=min((verdict.coverage for verdict in verdicts), default=None),
            n_input_tokens=len(job.prompt),
            n_output_tokens=finished.n_output_tokens,
            reply=digest_of(finished.text.encode()),
            queued_ms=finished.queued_ms,
            first_token_ms=finished.first_token_ms,
            total_ms=finished.total_ms,
            content=finished.text if self.settings.keep_content else None,
        )
        for verdict in verdicts:
            self.telemetry.control(verdict.monitor, "down" if verdict.down else "flagged" if verdict.flagged else "quiet")
        if finished.intervention == "escalate":
            _log.warning("escalated: %s of %s", job.name, job.tenant)
            self.telemetry.emit("auditgap.escalation", {"gen_ai.response.id": job.name}, severity=SeverityNumber.WARN)
        self.ledger.append(line, lambda error: job.settle(finished if error is None else _unwritten(error)))

    def seen(self, finished: Finished) -> Seen:
        """What a tenant who may know is told."""
        verdicts = [Verdict.of(watched) for watched in finished.watched]
        coverage = min((verdict.coverage for verdict in verdicts), default=None)
        return Seen(release=self.settings.release, intervention=finished.intervention, coverage=coverage, verdicts=verdicts)

    def drain(self, deadline_s: float) -> None:
        """Accept nothing more, let what runs finish until the deadline, then cut it; from outside the event loop."""
        self.stopping = True
        deadline = time.monotonic() + deadline_s
        while self.n_admitted and time.monotonic() < deadline:
            time.sleep(0.01)
        for job in tuple(self._running):
            self.worker.cut(job, "the server stops")
        late = time.monotonic() + 2.0
        while self.n_admitted and time.monotonic() < late:
            time.sleep(0.01)

    def close(self) -> None:
        """Stop the worker, write what waits and close the ledger."""
        self.worker.close()
        self.ledger.close()
        self._tokenizing.shutdown(cancel_futures=True)
        self.telemetry.shutdown()

    async def _tokenised(self, prompt: Prompt) -> list[int]:
        """In a thread of its own: a long prompt must not hold up the streams of others."""
        try:
            loop = asyncio.get_running_loop()
            return (await loop.run_in_executor(self._tokenizing, prompt_ids, self.worker.model, [prompt]))[0]
        except UsageError as error:
            raise _refused(str(error)) from None
        except jinja2.TemplateError as error:
            raise _refused(f"the model's chat template refuses these messages: {str(error)[:200]}") from None

    def _limit(self, tenant: Tenant, n_prompt: int, asked: int | None) -> int:
        """The longest reply: what was asked for if it fits, else an error; the most that fits if nothing was asked."""
        if n_prompt > tenant.max_prompt_tokens:
            raise _refused(f"the prompt has {n_prompt} tokens, {tenant.max_prompt_tokens} are allowed; shorten it")
        context = self.worker.model.context_length
        room = tenant.max_new_tokens if context is None else context - n_prompt
        if room < 1 or (asked is not None and asked > room and context is not None):
            raise _refused(f"the prompt has {n_prompt} tokens and {asked or 1} more are asked, the context holds {context}")
        if asked is not None and asked > tenant.max_new_tokens:
            raise ApiError(
                400,
                f"{asked} new tokens are asked, {tenant.max_new_tokens} are allowed",
                type="invalid_request_error",
                code="invalid_value",
                param="max_tokens",
            )
        return min(room, tenant.max_new_tokens) if asked is None else asked

    async def _write(self, line: Begun) -> None:
        loop = asyncio.get_running_loop()
        written: asyncio.Future[OSError | None] = loop.create_future()
        self.ledger.append(line, lambda error: loop.call_soon_threadsafe(_deliver, written, error))
        if (error := await written) is not None:
            raise _unwritten(error)

    def _busy(self, what: str, message: str, wait_s: float) -> ApiError:
        self.telemetry.control(what, "denied")
        return ApiError(429, f"{message}; try again later", type="rate_limit_error", code=what, retry_after_s=wait_s)


def _deliver(future: "asyncio.Future[OSError | None]", error: OSError | None) -> None:
    if not future.done():
        future.set_result(error)


def _unwritten(error: OSError) -> ApiError:
    _log.error("%s: the request ledger cannot be written; no request is served any more", type(error).__name__)
    return ApiError(503, "not ready: the ledger cannot be written", type="server_error", code="not_ready")


def _refused(message: str) -> ApiError:
    return ApiError(400, message, type="invalid_request_error", code="context_length_exceeded", param=None)


def _plain(prompt: Prompt) -> JsonValue:
    return prompt if isinstance(prompt, str) else [{"role": turn.role, "content": turn.content} for turn in prompt]

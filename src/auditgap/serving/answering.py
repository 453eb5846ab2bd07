"""One request over HTTP: read within bounds, answered whole or as a stream, cut when nobody listens.

A stream is server-sent events. Its last events (how it ended, the counts, `[DONE]`) leave after the ledger has its line. Each
piece must be taken within `send_timeout_s`; what piles up meanwhile is one string, no longer than the reply.
"""

import asyncio
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import NormalDist

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from auditgap.serving.jobs import Finished, Job
from auditgap.serving.replies import ApiError, ChatAnswer, ChatChoice, ChatMessage, CompletionAnswer, Finish, TextChoice, Usage
from auditgap.serving.service import Service
from auditgap.serving.telemetry import Exchange
from auditgap.serving.tenants import Tenant
from auditgap.serving.wire import Chat, Completion, read_request

__all__ = ["Answer", "ReaderGone", "error_response"]

_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
_FINISH: dict[str, Finish] = {"stop": "stop", "length": "length", "content_filter": "content_filter"}


class ReaderGone(Exception):
    """Nobody is left to be told: the client went away, took nothing for too long, or was told in its stream."""


class Answer(Response):
    """The answer to a request that has not been read yet."""

    def __init__(self, service: Service, form: type[Chat] | type[Completion]) -> None:
        super().__init__()
        self._service, self._form = service, form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read, ask the model, send."""
        service, request = self._service, Request(scope, receive)
        tenant = service.tenant(request.headers.get("authorization"))
        with service.admitted(tenant):
            body = await _body(request, tenant, service.settings.body_timeout_s)
            asked = read_request(body, self._form)
            with service.telemetry.exchange(asked.operation, model=service.settings.name) as exchange:
                job = await service.begin(tenant, asked)
                with _watched_over(service, job, receive):
                    talk = _Talk(service, tenant, asked, job, send)
                    finished = await (talk.stream() if asked.stream else talk.whole())
                _tell(exchange, service, asked, job, finished)


class _Talk:
    """The answer to one job, on its way out."""

    def __init__(self, service: Service, tenant: Tenant, asked: Chat | Completion, job: Job, send: Send) -> None:
        self._service, self._asked, self._job, self._send_raw = service, asked, job, send
        self._sees = tenant.verdicts

    async def whole(self) -> Finished:
        """One document, once all is there."""
        finished = await self._job.finished
        if finished.outcome not in _FINISH:
            raise _broken(finished)
        content = self._document(finished).model_dump_json().encode()
        await self._send(_start(200, [(b"content-type", b"application/json")], self._job.name, len(content)))
        await self._send({"type": "http.response.body", "body": content})
        return finished

    async def stream(self) -> Finished:
        """Events, as the text comes."""
        await self._send(_start(200, _EVENTS, self._job.name))
        if isinstance(self._asked, Chat):
            await self._event(self._chunk({"delta": {"role": "assistant", "content": ""}}))
        while (text := await self._job.read()) is not None:
            await self._event(self._chunk(_piece(self._asked, text)))
        try:
            finished = await self._job.finished
            if finished.outcome not in _FINISH:
                raise _broken(finished)
        except ApiError as error:
            await self._event(error.body.model_dump(mode="json"))
            await self._send({"type": "http.response.body", "body": b""})
            raise ReaderGone(str(error)) from None
        await self._last_events(finished)
        return finished

    async def _last_events(self, finished: Finished) -> None:
        last = self._chunk(_piece(self._asked, ""), _FINISH[finished.outcome])
        if self._sees:
            last["auditgap"] = self._service.seen(finished).model_dump(mode="json")
        await self._event(last)
        if self._asked.includes_usage:
            counts = _usage(self._job, finished).model_dump()
            await self._event(self._chunk(None) | {"usage": counts})
        await self._send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    def _chunk(self, choice: dict[str, object] | None, finish: Finish | None = None) -> dict[str, object]:
        kind = "chat.completion.chunk" if isinstance(self._asked, Chat) else "text_completion"
        choices: list[dict[str, object]] = (
            [] if choice is None else [{"index": 0, **choice, "logprobs": None, "finish_reason": finish}]
        )
        head = {"id": self._job.name, "object": kind, "created": self._job.created_at, "model": self._asked.model}
        return {**head, "choices": choices}

    def _document(self, finished: Finished) -> BaseModel:
        finish, usage = _FINISH[finished.outcome], _usage(self._job, finished)
        head = {"id": self._job.name, "created": self._job.created_at, "model": self._asked.model, "usage": usage}
        head["auditgap"] = self._service.seen(finished) if self._sees else None
        if isinstance(self._asked, Chat):
            return ChatAnswer(choices=[ChatChoice(message=ChatMessage(content=finished.text), finish_reason=finish)], **head)
        return CompletionAnswer(choices=[TextChoice(text=finished.text, finish_reason=finish)], **head)

    async def _event(self, document: dict[str, object]) -> None:
        data = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
        await self._send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": True})

    async def _send(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._service.settings.send_timeout_s):
                await self._send_raw(message)
        except TimeoutError:
            self._service.worker.cut(self._job, "the reader is too slow")
            raise ReaderGone("the reader is too slow") from None


@contextmanager
def _watched_over(service: Service, job: Job, receive: Receive) -> Iterator[None]:
    """Cut the job when the client goes away or its time is over, and in any case when the block is left."""

    async def until_gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        service.worker.cut(job, "the client went away")

    loop = asyncio.get_running_loop()
    gone = loop.create_task(until_gone())
    late = loop.call_later(service.settings.request_timeout_s, service.worker.cut, job, "the time limit")
    try:
        yield
    finally:
        late.cancel()
        gone.cancel()
        service.worker.cut(job, "the answer was given up")


async def _body(request: Request, tenant: Tenant, timeout_s: float) -> bytes:
    """The body, bounded in bytes and seconds.

    Raises:
        ApiError: 415 it is not JSON by its type, 413 it is too long, 408 it took too long.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        message = "expected the header 'Content-Type: application/json'"
        raise ApiError(415, message, type="invalid_request_error", code="unsupported_media_type")
    found = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in request.stream():
                found += chunk
                if len(found) > tenant.max_body_bytes:
                    message = f"the body has more than {tenant.max_body_bytes:,} bytes, which is this token's limit"
                    raise ApiError(413, message, type="invalid_request_error", code="body_too_large")
    except TimeoutError:
        message = f"the body did not arrive within {timeout_s:g} s"
        raise ApiError(408, message, type="invalid_request_error", code="body_timeout") from None
    return bytes(found)


def _tell(exchange: Exchange, service: Service, asked: Chat | Completion, job: Job, finished: Finished) -> None:
    """Spans, log records and counts of an exchange that was answered."""
    seen = service.seen(finished)
    n_scored = None if seen.coverage is None else int(seen.coverage * finished.n_output_tokens)
    for verdict in seen.verdicts:
        if verdict.score is not None:
            label = "flagged" if verdict.flagged else "quiet"
            exchange.evaluated(verdict.monitor, _share_below(verdict.score), label=label, response=job.name)
    exchange.finished(
        response=job.name,
        stops=[finished.outcome],
        n_input_tokens=len(job.prompt),
        n_output_tokens=finished.n_output_tokens,
        n_scored_tokens=n_scored,
    )


def error_response(error: ApiError) -> JSONResponse:
    """An error as it is sent. The connection is closed where the rest of a body may still be under way."""
    headers = {"connection": "close"} if error.status in (408, 413) else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    if error.retry_after_s is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_s))
    return JSONResponse(error.body.model_dump(mode="json"), error.status, headers)


def _broken(finished: Finished) -> ApiError | ReaderGone:
    """What a request is told that was not answered."""
    if finished.outcome == "failed":
        return ApiError(500, "the model failed on this request", type="server_error", code="model_error")
    if finished.reason == "the client went away":
        return ReaderGone(finished.reason)
    code = "timeout" if finished.reason == "the time limit" else "stopped"
    return ApiError(503, f"the request was cut: {finished.reason}", type="server_error", code=code)


def _start(status: int, headers: list[tuple[bytes, bytes]], name: str, n_bytes: int | None = None) -> Message:
    length = [] if n_bytes is None else [(b"content-length", str(n_bytes).encode())]
    return {
        "type": "http.response.start",
        "status": status,
        "headers": [*headers, *length, (b"x-request-id", name.encode())],
    }


def _piece(asked: Chat | Completion, text: str) -> dict[str, object]:
    if isinstance(asked, Chat):
        return {"delta": {"content": text} if text else {}}
    return {"text": text}


def _share_below(score: float) -> float:
    """A score as telemetry wants it, in [0, 1]: the share of ordinary prompts below it, if their scores were normal."""
    return NormalDist().cdf(score)


def _usage(job: Job, finished: Finished) -> Usage:
    n_in, n_out = len(job.prompt), finished.n_output_tokens
    return Usage(prompt_tokens=n_in, completion_tokens=n_out, total_tokens=n_in + n_out)

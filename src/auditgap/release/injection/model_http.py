"""An HTTP proxy in front of a model endpoint: it records what was asked as sent, and injects faults.

It speaks the OpenAI formats (chat completions, completions, responses) and Anthropic's (messages); any other path is passed on
without being read. Where no fault is due, the bytes of request and answer pass unchanged, streams as they come. Credentials go
upstream as they are and are neither logged nor stored; the proxy's own bearer token travels in `Proxy-Authorization`.

One request:
(1) the token is checked; the body is read up to a limit;
(2) what was asked is observed, and written to the event stream;
(3) faults that keep the request from the model act;
(4) the answer is passed on, or changed by the faults that act on answers;
(5) what came back is written to the event stream.
All of it ends when the client leaves or the time is over, and the connection upstream closes with it.
"""

import asyncio
import itertools
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from pydantic import Field
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from auditgap.records import Number, Record
from auditgap.release.faults import Fault, FaultKind, Injector
from auditgap.release.injection.hosting import (
    TooLargeError,
    forwarded,
    holds_token,
    is_loopback,
    limited,
    upstream_url,
    while_client_waits,
)
from auditgap.release.injection.kinds import check_plan, flag, number
from auditgap.release.injection.model_answer import Answer
from auditgap.release.injection.model_wire import Wire, canonical_request, sent, wire_of
from auditgap.release.observation import Observation, Observer

__all__ = ["ModelProxy", "ProxyLimits"]

_BEFORE: tuple[FaultKind, ...] = ("latency", "hang", "rate_limit", "llm_429", "llm_5xx", "disconnect")


class ProxyLimits(Record):
    """What a client or an endpoint may cost the proxy."""

    request_bytes: int = Field(default=32 * 2**20, ge=1)
    answer_bytes: int = Field(default=64 * 2**20, ge=1)
    connect_s: Number = Field(default=10.0, gt=0)
    idle_s: Number = Field(default=300.0, gt=0)
    """Longest silence of the endpoint."""
    total_s: Number = Field(default=900.0, gt=0)
    """Longest request, from its first byte to the last byte of the answer."""


class ModelProxy:
    """The proxy for one endpoint; `app()` is what a server runs."""

    def __init__(
        self,
        upstream: str,
        injector: Injector,
        observe: Observer,
        *,
        name: str = "model",
        token: str | None = None,
        limits: ProxyLimits | None = None,
    ) -> None:
        """`upstream` is the endpoint's address without the path that clients send, such as `https://api.openai.com`.

        Raises:
            UsageError: the address is not http(s), or carries credentials or a query.
            PlanError: a fault of the plan cannot act on a model.
        """
        self._upstream = upstream_url(upstream, such_as="https://api.openai.com")
        self._injector = injector
        check_plan(injector.plan, "model")
        self._observe = observe
        self._name = name
        self._token = token
        self._limits = limits or ProxyLimits()
        self._numbers = itertools.count(1)
        self._timeout = httpx.Timeout(self._limits.idle_s, connect=self._limits.connect_s)
        self._client: httpx.AsyncClient

    def app(self) -> Starlette:
        """The proxy as an ASGI application."""

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            async with httpx.AsyncClient(trust_env=not is_loopback(self._upstream.host)) as self._client:
                yield

        return Starlette(routes=[Route("/{path:path}", endpoint=self)], lifespan=lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        wire = wire_of(request.method, request.url.path)
        answer = Answer(wire, send, self._injector, call_id=f"m{next(self._numbers)}", server=self._name)
        if self._token is not None and not holds_token(request, self._token):
            await answer.error(407, "this proxy asks for its own token: Proxy-Authorization: Bearer ...", outcome="refused")
            return
        try:
            async with asyncio.timeout(self._limits.idle_s):
                body = b"".join([part async for part in limited(request.stream(), self._limits.request_bytes)])
        except (TimeoutError, ClientDisconnect):
            return
        except TooLargeError:
            await answer.error(413, f"a request may have {self._limits.request_bytes} bytes", outcome="refused")
            return
        try:
            ended = await while_client_waits(self._serve(request, wire, body, answer), receive, within_s=self._limits.total_s)
            if ended == "client_left":
                answer.outcome = ended
            elif ended == "too_slow":
                await answer.fail(504, "timeout", f"no complete answer within {self._limits.total_s:g} s")
        finally:
            answer.report()

    async def _serve(self, request: Request, wire: Wire | None, body: bytes, answer: Answer) -> None:
        self._record(request, wire, body, answer)
        before = self._injector.due("model", _BEFORE, server=self._name) if wire else ()
        for fault in before:
            if not await self._goes_on(fault, answer):
                return
        late = [fault for fault in before if fault.kind == "disconnect"]
        try:
            async with self._asked(request, wire, body) as upstream:
                if late:
                    await answer.break_off()
                    answer.acted(late[0])
                else:
                    await answer.pass_on(upstream, limit=self._limits.answer_bytes)
        except httpx.TimeoutException:
            await answer.fail(504, "upstream_timeout", "the model endpoint did not answer in time")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            await answer.fail(502, "upstream_failed", f"the model endpoint could not be used ({type(error).__name__})")

    def _record(self, request: Request, wire: Wire | None, body: bytes, answer: Answer) -> None:
        document = canonical_request(body) if wire else None
        if wire and document is not None:
            content = sent(wire, request.url.path, document)
            self._observe(Observation(what="request", server=self._name, content=content))
        outcome = "not_read" if wire is None else "unreadable" if document is None else "read"
        answer.asked(outcome, path=request.url.path, body=body, document=document)

    async def _goes_on(self, fault: Fault, answer: Answer) -> bool:
        """Apply a fault that acts before the model is asked; False if the model must not be asked."""
        if fault.kind == "latency":
            await asyncio.sleep(number(fault, "latency_ms") / 1000)
            answer.acted(fault)
            return True
        if fault.kind == "hang":
            answer.acted(fault)  # from here on nothing is answered
            await asyncio.sleep(number(fault, "hang_s") or math.inf)
            await answer.error(504, "no answer from the model (injected)", outcome="injected")
        elif fault.kind in ("llm_429", "rate_limit"):
            retry_after_s = number(fault, "retry_after_s")
            await answer.error(429, "rate limited (injected)", outcome="injected", retry_after_s=retry_after_s)
            answer.acted(fault)
        elif fault.kind == "llm_5xx":
            await answer.error(int(number(fault, "status")), "the model endpoint failed (injected)", outcome="injected")
            answer.acted(fault)
        elif not flag(fault, "after_effect"):
            await answer.break_off()
            answer.acted(fault)
        else:
            return True
        return False

    @asynccontextmanager
    async def _asked(self, request: Request, wire: Wire | None, body: bytes) -> AsyncIterator[httpx.Response]:
        """The endpoint's answer, its body not read yet; the connection closes with the block."""
        below = self._upstream.raw_path.rstrip(b"/")
        asked = forwarded(request, body, self._upstream, below=below, is_read=wire is not None, timeout=self._timeout.as_dict())
        answered = await self._client.send(asked, stream=True)
        try:
            yield answered
        finally:
            await answered.aclose()

"""A reverse proxy in front of an MCP server's streamable HTTP endpoint, with the same say as the one on stdio.

Session ids, protocol headers and credentials for the server pass unchanged; the proxy's own token travels in
`Proxy-Authorization`, which is never passed on. One request:

1. A token is checked, or, where only this machine can connect and no token is set, that the Host is this machine's: a web page
   must not reach the server through a name that it controls.
2. A POST that is a watched request goes through `Exchange.answer`. Its answer comes as JSON or inside an event stream, of which
   only the event that carries it is held back and, if a fault acted, rewritten.
3. Everything else (notifications, the GET stream, DELETE, batches) is passed on byte for byte.

A client that leaves ends its request on the server's side too. An answer that the server moves to the GET stream (resumption) is
passed on there without being read.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from auditgap.release.injection.exchange import Disconnected, Exchange, Limits
from auditgap.release.injection.hosting import (
    TooLargeError,
    check_reach,
    forwarded,
    holds_token,
    hosted,
    is_loopback,
    limited,
    upstream_url,
    while_client_waits,
)
from auditgap.release.injection.mcp_leg import Leg
from auditgap.release.injection.mcp_wire import Received, error_answer, load, watched

__all__ = ["McpProxy", "proxy_http"]


class McpProxy:
    """The proxy for one server; `app()` is what a web server runs."""

    _client: httpx.AsyncClient

    def __init__(self, upstream: str, exchange: Exchange, *, token: str | None = None, limits: Limits | None = None) -> None:
        """`upstream` is the server's endpoint, such as `http://127.0.0.1:8000/mcp`; other paths of that server pass too.

        Raises:
            UsageError: the address is not http(s), or carries credentials, a query or a fragment.
        """
        self.endpoint = upstream_url(upstream, such_as="http://127.0.0.1:8000/mcp")
        self.exchange = exchange
        self._token = token
        self._limits = limits or Limits()
        self._n_open = 0

    def app(self) -> Starlette:
        """The proxy as an ASGI application."""

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            timeout = httpx.Timeout(self._limits.answer_timeout_s, connect=min(10, self._limits.answer_timeout_s))
            local = is_loopback(self.endpoint.host)
            async with httpx.AsyncClient(timeout=timeout, trust_env=not local, follow_redirects=False) as self._client:
                yield

        return Starlette(routes=[Route("/{path:path}", endpoint=self)], lifespan=lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        leg = Leg(request, send, self._sent_on, self._limits)
        if (refused := self._refusal(request)) is not None:
            await leg.begin(refused[0], [(b"content-type", b"text/plain; charset=utf-8")])
            await leg.end(refused[1].encode())
            return
        try:
            async with asyncio.timeout(self._limits.answer_timeout_s):
                leg.body = b"".join([part async for part in limited(request.stream(), self._limits.max_message_bytes)])
        except (TimeoutError, ClientDisconnect):
            return
        except TooLargeError:
            await leg.begin(413, [(b"content-type", b"text/plain; charset=utf-8")])
            await leg.end(f"expected at most {self._limits.max_message_bytes} bytes in a request".encode())
            return
        try:
            await while_client_waits(self._serve(leg), receive)
        finally:
            await leg.close()

    async def _serve(self, leg: Leg) -> None:
        message = load(leg.body) if leg.request.method == "POST" else None
        if not isinstance(message, dict) or not watched(message):
            await leg.pass_on()
            return
        request = Received(message, leg.body)
        if self._n_open >= self._limits.max_open:
            await leg.give(error_answer(request, -32000, self._limits.too_many_open))
            return
        self._n_open += 1
        try:
            answer = await self.exchange.answer(request, self.exchange.due(request), leg.ask)
        except Disconnected:
            await leg.break_off()
            return
        finally:
            self._n_open -= 1
        if answer is not None:
            await leg.give(answer)
        elif leg.unread:
            await leg.pass_on()
        else:
            await asyncio.get_running_loop().create_future()  # no answer at all: until the client leaves

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        if self._token is not None:
            if not holds_token(request, self._token):
                return 407, "expected this proxy's own token in the header Proxy-Authorization: Bearer ..."
        elif not is_loopback(request.url.hostname or ""):
            return 421, f"expected a Host of this machine, such as 127.0.0.1, got '{request.url.hostname}'"
        return None

    async def _sent_on(self, request: Request, body: bytes) -> httpx.Response:
        """The server's response to a client's request with this body; its own body is not read yet."""
        waits_for_events = {"read": None} if request.method == "GET" else {}
        timeout = self._client.timeout.as_dict() | waits_for_events
        asked = forwarded(request, body, self.endpoint, is_read=True, timeout=timeout)
        return await self._client.send(asked, stream=True)


@contextmanager
def proxy_http(
    upstream: str,
    exchange: Exchange,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    limits: Limits | None = None,
) -> Iterator[str]:
    """A proxy that serves from a thread while the block lasts; gives the endpoint that clients use.

    Raises:
        UsageError: an address is not one, or others could reach the proxy and it has no token.
    """
    check_reach(host, token)
    proxy = McpProxy(upstream, exchange, token=token, limits=limits)
    with hosted(proxy.app(), host=host, port=port) as url:
        yield url + proxy.endpoint.path

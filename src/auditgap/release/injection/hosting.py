"""Serving an ASGI application from a thread, for as long as a block lasts, and the rules that every HTTP proxy here follows."""

import asyncio
import hmac
import ipaddress
import socket
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.types import Receive

from auditgap.errors import UsageError

__all__ = [
    "TooLargeError",
    "check_reach",
    "end_to_end",
    "forwarded",
    "holds_token",
    "hosted",
    "is_loopback",
    "limited",
    "upstream_url",
    "while_client_waits",
]

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split()
)
_START_S = 10.0
_STOP_S = 2

Headers = list[tuple[bytes, bytes]]


class TooLargeError(Exception):
    """A message over its limit; the text says what was sent."""


def is_loopback(host: str) -> bool:
    """True if only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers that a proxy passes on: all but those of one connection (RFC 9110, section 7.6.1). Names in lower case."""
    kept = [(name.lower(), value) for name, value in headers]
    named = {option.strip().lower() for name, value in kept if name == b"connection" for option in value.split(b",")}
    return [(name, value) for name, value in kept if name not in _HOP_BY_HOP | named]


def upstream_url(address: str, *, such_as: str) -> httpx.URL:
    """The address of what a proxy stands in front of.

    Raises:
        UsageError: it is not http(s), or carries credentials, a query or a fragment, which are the clients' to send.
    """
    expected = f"expected an address such as {such_as}, without credentials, query or fragment"
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise UsageError(f"{expected}; got one that does not parse: {error}") from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.query or url.fragment:
        raise UsageError(f"{expected}; got scheme '{url.scheme}' and host '{url.host}'")
    return url


def check_reach(host: str, token: str | None) -> None:
    """Refuse to serve others without a token.

    Raises:
        UsageError: others can reach `host` and there is none.
    """
    if token is None and not is_loopback(host):
        raise UsageError(
            f"others can reach {host}: set AUDITGAP_PROXY_TOKEN, which clients send as Proxy-Authorization: Bearer ..."
        )


def holds_token(request: Request, token: str) -> bool:
    """True if the client sent the proxy's own token; compared in constant time."""
    given = request.headers.get("proxy-authorization", "")
    return hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


async def limited(parts: AsyncIterable[bytes], max_bytes: int) -> AsyncIterator[bytes]:
    """The parts of a body, read no further than the limit.

    Raises:
        TooLargeError: it is longer.
    """
    size = 0
    async for part in parts:
        if (size := size + len(part)) > max_bytes:
            raise TooLargeError(f"sent a message of more than {max_bytes} bytes")
        yield part


def forwarded(
    request: Request, body: bytes, upstream: httpx.URL, *, below: bytes = b"", is_read: bool, timeout: dict[str, float | None]
) -> httpx.Request:
    """A client's request as it goes on to the server, with the body and the path under `below`.

    Where the answer `is_read`, it is asked for without compression.
    """
    scope, query = request.scope, request.scope["query_string"]
    path = below + scope.get("raw_path", scope["path"].encode()).partition(b"?")[0]
    dropped = (b"host", b"content-length") + ((b"accept-encoding",) if is_read else ())
    headers = [(name, value) for name, value in end_to_end(request.headers.raw) if name not in dropped]
    if is_read:
        headers.append((b"accept-encoding", b"identity"))
    url = upstream.copy_with(raw_path=path + (b"?" + query if query else b""))
    return httpx.Request(request.method, url, headers=headers, content=body or None, extensions={"timeout": timeout})


async def while_client_waits(
    serve: Coroutine[None, None, None], receive: Receive, *, within_s: float | None = None
) -> Literal["served", "client_left", "too_slow"]:
    """Serve until it is done, the client leaves or the time is over: which of them; by then `serve` has stopped."""
    work, gone = asyncio.ensure_future(serve), asyncio.ensure_future(_until_gone(receive))
    try:
        await asyncio.wait((work, gone), timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            return "served"
        return "client_left" if gone.done() else "too_slow"
    finally:
        work.cancel()
        gone.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


@contextmanager
def hosted(app: Starlette, *, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Serve `app` in a thread and give its address, such as `http://127.0.0.1:40123`; port 0 takes a free one.

    Raises:
        UsageError: the address cannot be bound, or the application does not start.
    """
    # asyncio sends small writes at once (TCP_NODELAY) only on sockets that name TCP; otherwise each answer waits 40 ms
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host, port))
        bound.listen()
    except OSError as error:
        bound.close()
        raise UsageError(
            f"cannot listen on {host} port {port}: {error.strerror}; take another port, or 0 for a free one"
        ) from None
    config = uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=_STOP_S,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, name="auditgap-hosted", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + _START_S
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                raise UsageError(f"the application did not start on {host} port {port}")
            time.sleep(0.005)
        name = f"[{host}]" if ":" in host else host
        yield f"http://{name}:{bound.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

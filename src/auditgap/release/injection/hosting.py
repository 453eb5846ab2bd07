"""Serving an ASGI application from a thread, for as long as a block lasts, and the rules that every HTTP proxy here follows."""

import ipaddress
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.applications import Starlette

from auditgap.errors import UsageError

__all__ = ["end_to_end", "hosted", "is_loopback"]

_HOP_BY_HOP = frozenset(
    b"connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade".split()
)
_START_S = 10.0
_STOP_S = 2

Headers = list[tuple[bytes, bytes]]


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

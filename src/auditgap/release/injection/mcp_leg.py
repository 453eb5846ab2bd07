"""One request to an MCP server over streamable HTTP and the way back of its answer: as JSON, in an event stream, or cut."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
from starlette.requests import Request
from starlette.types import Send

from auditgap.release.injection.exchange import Limits
from auditgap.release.injection.hosting import TooLargeError, end_to_end, limited
from auditgap.release.injection.mcp_wire import Received, Wire, error_answer, load, raw_of
from auditgap.release.injection.model_wire import events, payload

__all__ = ["Leg"]

SendOn = Callable[[Request, bytes], Awaitable[httpx.Response]]
"""Sends a client's request to the server with this body; the response's own body is not read yet."""

_STREAM, _JSON = "text/event-stream", "application/json"


class Leg:
    """One client's request and the way back of its answer."""

    def __init__(self, request: Request, send: Send, send_on: SendOn, limits: Limits) -> None:
        self.request, self.body = request, b""
        self.unread = False
        """The server's response is at hand and holds no answer that could be read: pass it on."""
        self._send, self._send_on, self._limits = send, send_on, limits
        self._response: httpx.Response | None = None
        self._held = b""
        self._rest: AsyncIterator[bytes] | None = None
        self._begun = False

    async def ask(self, request: Wire) -> Wire | None:
        """Send a request on; the first one's response is the client's, those of copies are read and dropped."""
        try:
            async with asyncio.timeout(self._limits.answer_timeout_s):
                response = await self._send_on(self.request, raw_of(request))
                if not isinstance(request, Received):
                    return await self._read_copy(response, request)
                self._response = response
                kind = response.headers.get("content-type", "").partition(";")[0].strip()
                if response.status_code == 200 and kind == _JSON:
                    return await self._from_json(response)
                if response.status_code == 200 and kind == _STREAM:
                    return await self._from_stream(response, request)
                self.unread = True
                return None
        except (TimeoutError, httpx.TimeoutException):
            return error_answer(request, -32001, self._limits.waited_for(request))
        except httpx.HTTPError as error:
            return error_answer(request, -32000, f"{_unusable(error)}; start it, or check the address")
        except TooLargeError as error:
            return error_answer(request, -32000, f"the MCP server {error}")

    async def give(self, answer: Wire) -> None:
        """Deliver the answer in the form in which the server's came, or as JSON if it was not asked."""
        response = self._response
        if self._begun:
            await self._put(self._held if isinstance(answer, Received) else _rewritten(self._held, answer))
            if self._rest is not None:
                async for event in self._rest:
                    await self._put(event)
            await self.end()
            return
        body = raw_of(answer) if isinstance(answer, Received) else json.dumps(answer).encode()
        headers = [(b"content-type", _JSON.encode())] if response is None else _without_length(response)
        await self.begin(200, [*headers, (b"content-length", str(len(body)).encode())])
        await self.end(body)

    async def pass_on(self) -> None:
        """The whole response as it is."""
        try:
            response = self._response or await self._send_on(self.request, self.body)
        except httpx.HTTPError as error:
            await self.begin(502, [(b"content-type", b"text/plain; charset=utf-8")])
            await self.end(_unusable(error).encode())
            return
        self._response = response
        await self.begin(response.status_code, end_to_end(response.headers.raw))
        if self._held:
            await self._put(self._held)
        elif not response.is_stream_consumed:
            async for part in response.aiter_raw():
                await self._put(part)
        await self.end()

    async def break_off(self) -> None:
        """Begin an answer that never ends: the web server closes the connection under it."""
        await self.begin(200, [(b"content-type", _JSON.encode())])
        await self._put(b'{"jsonrpc":')

    async def begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        """Send status and headers, once."""
        if not self._begun:
            self._begun = True
            await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def end(self, body: bytes = b"") -> None:
        """Send the last part."""
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def close(self) -> None:
        """Close the server's side."""
        if self._response is not None:
            await self._response.aclose()

    async def _put(self, part: bytes) -> None:
        await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def _from_json(self, response: httpx.Response) -> Wire | None:
        self._held = b"".join([part async for part in limited(response.aiter_raw(), self._limits.max_message_bytes)])
        message = load(self._held)
        if isinstance(message, dict) and "id" in message and "method" not in message:
            return Received(message, self._held)
        self.unread = True
        return None

    async def _from_stream(self, response: httpx.Response, request: Wire) -> Wire | None:
        await self.begin(response.status_code, _without_length(response))
        stream = _events(response, self._limits)
        async for event in stream:
            if (message := _answer_in(event, request)) is not None:
                self._held, self._rest = event, stream
                return Received(message, event)
            await self._put(event)
        self.unread = True
        return None

    async def _read_copy(self, response: httpx.Response, request: Wire) -> Wire | None:
        try:
            async for event in _events(response, self._limits):
                if (message := _answer_in(event, request)) is not None:
                    return message
            return None
        finally:
            await response.aclose()


def _unusable(error: httpx.HTTPError) -> str:
    return f"the MCP server at {error.request.url} cannot be used ({type(error).__name__})"


def _without_length(response: httpx.Response) -> list[tuple[bytes, bytes]]:
    return [(name, value) for name, value in end_to_end(response.headers.raw) if name != b"content-length"]


async def _events(response: httpx.Response, limits: Limits) -> AsyncIterator[bytes]:
    """Server-sent events, byte for byte; what follows the last one comes last. A JSON body is one too."""
    held: list[bytes] = []
    size = n_events = 0
    async for part in response.aiter_raw():
        held.append(part)
        if (size := size + len(part)) > limits.max_message_bytes + len(part):
            raise TooLargeError(f"sent a message of more than {limits.max_message_bytes} bytes")
        if b"\n" not in part and b"\r" not in part:
            continue  # an event does not end here
        complete, rest = events(b"".join(held))
        held, size = [rest], len(rest)
        for event in complete:
            if (n_events := n_events + 1) > limits.max_unasked:
                raise TooLargeError(f"floods: {n_events} messages in one response, expected {limits.max_unasked} at most")
            yield event
    if rest := b"".join(held):
        yield rest


def _answer_in(event: bytes, request: Wire) -> Wire | None:
    message = payload(event)
    if message is None or "method" in message or "id" not in message:
        return None
    return message if repr(message["id"]) == repr(request["id"]) else None


def _rewritten(event: bytes, answer: Wire) -> bytes:
    """The event with another answer in it; its other lines and its line ends stay."""
    end = b"\r\n" if b"\r\n" in event else b"\n"
    others = [line for line in event.splitlines() if line and not line.startswith(b"data:")]
    return end.join([*others, b"data: " + json.dumps(answer).encode(), b"", b""])

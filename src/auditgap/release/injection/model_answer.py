"""What goes back to one client of the model proxy, and what the event stream says of it."""

import json
import math
from collections.abc import AsyncIterator

import httpx
from starlette.types import Send

from auditgap.records import digest_of
from auditgap.release.faults import Fault, Injector
from auditgap.release.injection.hosting import TooLargeError, end_to_end, limited
from auditgap.release.injection.kinds import number, text
from auditgap.release.injection.model_reading import Transcript, encoded, split
from auditgap.release.injection.model_tampering import LengthCut, MalformedCalls, text_length
from auditgap.release.injection.model_wire import Document, Wire, answered, payload

__all__ = ["Answer"]

_ANTHROPIC_TYPES = {407: "authentication_error", 413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}


class Answer:
    """One answer on its way to the client; `outcome` says how it ended."""

    def __init__(self, wire: Wire | None, send: Send, injector: Injector, *, call_id: str, server: str) -> None:
        self.begun = False
        self.outcome = "unanswered"
        self._wire: Wire | None = wire
        self._send = send
        self._injector = injector
        self._call_id = call_id
        self._server = server
        self._asked = False
        self._status: int | None = None
        self._transcript = Transcript(wire, streamed=False)
        self._applied: list[tuple[Fault, str | None]] = []

    def asked(self, outcome: str, *, path: str, body: bytes, document: Document | None) -> None:
        """Write the request into the event stream: digests, and no query, because keys travel there too."""
        self._asked = True
        model, stream = (document or {}).get("model"), bool((document or {}).get("stream"))
        self._injector.log.add(
            "model_request",
            call_id=self._call_id,
            server=self._server,
            name=model if isinstance(model, str) else None,
            outcome=outcome,
            content=document,
            detail={"wire": self._wire, "path": path, "stream": stream, "n_bytes": len(body), "sha256": digest_of(body)},
        )

    def acted(self, fault: Fault, tool: str | None = None) -> None:
        """Write down that a fault has acted on this answer."""
        self._injector.fired(fault, call_id=self._call_id, tool=tool)

    def report(self) -> None:
        """Write the answer into the event stream: its end, its digest and the tools it calls."""
        if not self._asked:
            return
        seen = self._transcript
        detail: Document = {"status": self._status, "n_bytes": seen.n_bytes, "sha256": seen.sha256(), "finish": seen.finish}
        self._injector.log.add(
            "model_response",
            call_id=self._call_id,
            server=self._server,
            outcome=self.outcome,
            detail={**detail, "read": seen.read, "tool_calls": seen.tools},
        )

    async def error(self, status: int, message: str, *, outcome: str, retry_after_s: float | None = None) -> None:
        """Answer with an error in the client's format."""
        self.outcome = outcome
        body = _error_body(self._wire, status, message)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if retry_after_s is not None:
            headers.append((b"retry-after", str(math.ceil(retry_after_s)).encode()))
        if status == 407:
            headers.append((b"proxy-authenticate", b'Bearer realm="auditgap"'))
        await self._start(status, headers)
        await self._body(body, more=False)

    async def fail(self, status: int, outcome: str, message: str) -> None:
        """Answer with an error, or break off where the answer has begun."""
        if self.begun:
            self.outcome = outcome
        else:
            await self.error(status, message, outcome=outcome)

    async def break_off(self) -> None:
        """Begin an answer that never ends: the server closes the connection under it."""
        self.outcome = "disconnected"
        await self._start(200, [(b"content-type", b"application/json")])

    async def pass_on(self, upstream: httpx.Response, *, limit: int) -> None:
        """Send the endpoint's answer, changed by the faults that are due and otherwise byte for byte."""
        streamed = upstream.headers.get("content-type", "").startswith("text/event-stream")
        readable = upstream.headers.get("content-encoding", "identity") == "identity"
        self._transcript = Transcript(self._wire if readable else None, streamed=streamed)
        self.outcome = "ok" if upstream.status_code < 400 else "error"
        headers = end_to_end(upstream.headers.raw)
        wire: Wire | None = self._wire if readable and upstream.status_code == 200 else None
        cut = self._injector.due("model", ("result_truncated",), server=self._server) if wire else ()
        try:
            if wire and (cut or any(fault.kind == "llm_malformed_tool_call" for fault in self._injector.plan.faults)):
                parts = limited(upstream.aiter_raw(), limit)
                changed = self._stream(wire, parts, cut) if streamed else self._document(wire, parts, cut)
                headers = [(name, value) for name, value in headers if name != b"content-length"]
            else:
                changed = limited(upstream.aiter_raw(), limit)
            async for part in changed:
                await self._start(upstream.status_code, headers)
                await self._body(part)
                self._report_applied()
            await self._start(upstream.status_code, headers)
            await self._body(b"", more=False)
            self._report_applied()
        except TooLargeError:
            await self.fail(502, "too_large", f"the model endpoint's answer is over {limit} bytes")

    async def _document(self, wire: Wire, parts: AsyncIterator[bytes], cuts: tuple[Fault, ...]) -> AsyncIterator[bytes]:
        body = b"".join([part async for part in parts])
        document = answered(body)
        if document is None:
            yield body
            return
        spoilt = MalformedCalls(wire, self._arguments)(document)
        for fault in cuts:
            length = text_length(wire, [json.loads(json.dumps(document))])
            LengthCut(wire, int(number(fault, "keep_share") * length))(document)
            self._applied.append((fault, None))
        yield json.dumps(document).encode() if spoilt or cuts else body

    async def _stream(self, wire: Wire, parts: AsyncIterator[bytes], cuts: tuple[Fault, ...]) -> AsyncIterator[bytes]:
        spoil = MalformedCalls(wire, self._arguments)
        if not cuts:
            async for event in split(parts):
                document = payload(event)
                replaced = None if document is None else spoil(document)
                yield event if replaced is None else encoded(event, replaced)
            return
        whole = [event async for event in split(parts)]
        length = text_length(wire, [document for event in whole if (document := payload(event)) is not None])
        cut = LengthCut(wire, int(number(cuts[0], "keep_share") * length))
        for event in whole:
            document = payload(event)
            spoilt = [] if document is None else spoil(document) or [document]
            yield event if document is None else encoded(event, [d for s in spoilt for d in cut(s) or ()])
        self._applied += [(cuts[0], None)] if whole else []

    def _arguments(self, tool: str) -> str | None:
        """What a call of `tool` is given for arguments; each call is one occasion for a fault."""
        due = self._injector.due("model", ("llm_malformed_tool_call",), tool=tool, server=self._server)
        self._applied += [(fault, tool) for fault in due]
        return text(due[-1], "arguments") if due else None

    def _report_applied(self) -> None:
        for fault, tool in self._applied:
            self.acted(fault, tool)
        self._applied.clear()

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        if not self.begun:
            self.begun, self._status = True, status
            await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _body(self, part: bytes, *, more: bool = True) -> None:
        self._transcript.add(part)
        await self._send({"type": "http.response.body", "body": part, "more_body": more})


def _error_body(wire: Wire | None, status: int, message: str) -> bytes:
    if wire == "anthropic-messages":
        error = {"type": _ANTHROPIC_TYPES.get(status, "api_error"), "message": message}
        return json.dumps({"type": "error", "error": error}).encode()
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    return json.dumps({"error": {"message": message, "type": kind, "param": None, "code": None}}).encode()

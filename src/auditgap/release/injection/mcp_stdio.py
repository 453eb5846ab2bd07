"""A stdio proxy around an unmodified MCP server: newline-delimited JSON-RPC is relayed both ways as the very bytes received.

1. The server runs as a child in a process group of its own; its stderr is ours.
2. A line of the client that is a watched request goes through `Exchange.answer`; any other line goes on at once.
3. A line of the server that answers a watched request wakes that answer; any other line goes on at once. A line that is not JSON
   goes on too, as it would without a proxy.
4. Order is kept: a step that waits for nothing is finished before the next line is read. Writing waits for whoever reads at the
   other end, so a flood fills pipes and not memory.
5. The end of either side, a limit or a fault ends the session; then the process group is ended and waited for.

A JSON-RPC batch (revision 2025-03-26 only) that holds a watched request is passed on message by message. POSIX only.
"""

import asyncio
import os
import shlex
import signal
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pydantic import JsonValue

from auditgap.errors import CannotMeasure
from auditgap.release.faults import Fault
from auditgap.release.injection.child import pipes_of, started
from auditgap.release.injection.exchange import Disconnected, Exchange, Limits
from auditgap.release.injection.mcp_wire import Received, Wire, error_answer, json_line, load, params_of, raw_of, watched

__all__ = ["relay", "serve_stdio"]

_EXIT_CODE_S = 0.4


class _Asked(NamedTuple):
    request: Wire
    answer: asyncio.Future[Wire]


class _Ended(Exception):
    """The session cannot go on; the text says why, of the server."""


async def serve_stdio(command: Sequence[str], exchange: Exchange, *, limits: Limits | None = None) -> None:
    """`relay` between this process's own stdin and stdout; SIGTERM and SIGINT end it cleanly.

    Raises:
        UsageError: the command cannot be started, or stdin or stdout is not a pipe.
        CannotMeasure: the server ended while the client was there, flooded, or takes no input.
    """
    loop = asyncio.get_running_loop()
    relaying = asyncio.create_task(_relay_standard_streams(command, exchange, limits))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, relaying.cancel)
    try:
        with suppress(asyncio.CancelledError):
            await relaying
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def _relay_standard_streams(command: Sequence[str], exchange: Exchange, limits: Limits | None) -> None:
    with os.fdopen(os.dup(0), "rb", buffering=0) as stdin, os.fdopen(os.dup(1), "wb", buffering=0) as stdout:
        await relay(command, exchange, stdin=stdin, stdout=stdout, limits=limits)


async def relay(
    command: Sequence[str],
    exchange: Exchange,
    *,
    stdin: BinaryIO,
    stdout: BinaryIO,
    limits: Limits | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run `command` and relay between it and the client at `stdin` and `stdout` (pipes, closed at the end), until one side ends.

    Raises:
        UsageError: the command cannot be started, or stdin or stdout is not a pipe.
        CannotMeasure: the server ended while the client was there, flooded, or takes no input.
    """
    limits = limits or Limits()
    limit = limits.max_message_bytes
    async with (
        pipes_of(stdin, stdout, limit=limit) as (reader, writer),
        started(command, limit=limit, env=env, cwd=cwd) as server,
    ):
        try:
            await _Session(exchange, limits, server, reader, writer).run()
        except _Ended as ended:
            with suppress(TimeoutError):
                await asyncio.wait_for(server.wait(), _EXIT_CODE_S)
            code = "" if server.returncode is None else f" (exit code {server.returncode})"
            raise CannotMeasure(
                f"the MCP server `{shlex.join(command)}`{code} {ended}. Run it without the proxy to see whether it does so too"
            ) from None


class _Session:
    """One client and one server."""

    def __init__(
        self,
        exchange: Exchange,
        limits: Limits,
        server: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        assert server.stdin is not None and server.stdout is not None  # it is started with pipes
        self._exchange, self._limits = exchange, limits
        self._client_out, self._client_in = reader, writer
        self._server_out, self._server_in = server.stdout, server.stdin
        self._asked: dict[str, _Asked] = {}
        self._answers: dict[str, asyncio.Task[None]] = {}
        self._n_unasked = 0
        self._cut: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Relay until one side ends.

        Raises:
            _Ended: the server made it impossible to go on.
        """
        upward, downward = asyncio.create_task(self._upward()), asyncio.create_task(self._downward())
        try:
            await asyncio.wait((upward, downward, self._cut), return_when=asyncio.FIRST_COMPLETED)
            if self._cut.done():
                self._cut.result()
            elif upward.done() and not upward.exception():  # the client has said all it wanted, and so the server sees it
                self._server_in.close()
                await self._settled(downward)
            else:
                self._fail("the session with the MCP server ended before it answered")
                await self._settled()
                for task in (downward, upward):
                    if task.done():
                        task.result()
                raise _Ended("closed its output while the client was connected; expected it to serve until its input closes")
        except ConnectionError:
            return  # the client does not read any more
        finally:
            self._cut.cancel()
            tasks = (upward, downward, *self._answers.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _upward(self) -> None:
        async for line in _lines(self._client_out, self._limits, "cannot be given a message of the client"):
            for message in _messages(line, watched):
                if watched(message):
                    self._take(message)
                else:
                    self._give_up(message)
                    self._server_in.write(raw_of(message))
                await asyncio.sleep(0)
            try:
                async with asyncio.timeout(self._limits.answer_timeout_s):
                    await self._server_in.drain()
            except TimeoutError:
                raise _Ended(f"has taken no input for {self._limits.answer_timeout_s:g} s; expected it to read") from None
            except ConnectionError:
                raise _Ended("closed its input while the client was connected; expected it to read until then") from None

    async def _downward(self) -> None:
        async for line in _lines(self._server_out, self._limits, "sent a message"):
            for message in _messages(line, self._awaited):
                if self._awaited(message):
                    self._n_unasked = 0
                    self._asked[_key(message["id"])].answer.set_result(message)
                else:
                    self._n_unasked += 1
                    self._client_in.write(raw_of(message))
                await asyncio.sleep(0)
            if self._n_unasked > self._limits.max_unasked:
                raise _Ended(
                    f"floods: {self._n_unasked} messages between two answers, expected {self._limits.max_unasked} at most"
                )
            await self._client_in.drain()

    def _take(self, request: Received) -> None:
        key = _key(request["id"])
        if len(self._answers) >= self._limits.max_open:
            self._client_in.write(raw_of(error_answer(request, -32000, self._limits.too_many_open)))
        elif key in self._answers:
            self._server_in.write(raw_of(request))  # the id is in use: two answers could not be told apart
        else:
            self._answers[key] = asyncio.create_task(self._answer(key, request, self._exchange.due(request)))

    async def _answer(self, key: str, request: Wire, faults: Sequence[Fault]) -> None:
        try:
            answer = await self._exchange.answer(request, faults, self._ask)
            if answer is not None:
                self._client_in.write(raw_of(answer))
        except Disconnected:
            if not self._cut.done():
                self._cut.set_result(None)
        except Exception as error:  # what could not be recorded or changed must not look like a clean exchange
            if not self._cut.done():
                self._cut.set_exception(error)
        finally:
            del self._answers[key]

    async def _ask(self, request: Wire) -> Wire:
        key = _key(request["id"])
        waiting = self._asked[key] = _Asked(request, asyncio.get_running_loop().create_future())
        self._server_in.write(raw_of(request))
        try:
            async with asyncio.timeout(self._limits.answer_timeout_s):
                return await waiting.answer
        except TimeoutError:
            return error_answer(request, -32001, self._limits.waited_for(request))
        finally:
            self._asked.pop(key, None)

    def _awaited(self, message: JsonValue) -> bool:
        """True for the answer to a request that was sent on and is still waited for."""
        if not isinstance(message, dict) or "method" in message or "id" not in message:
            return False
        asked = self._asked.get(_key(message["id"]))
        return asked is not None and not asked.answer.done()

    def _give_up(self, message: Wire) -> None:
        """Stop working on a request that the client cancels; the notice itself goes on to the server."""
        if message.get("method") == "notifications/cancelled":
            answer = self._answers.get(_key(params_of(message).get("requestId")))
            if answer is not None:
                answer.cancel()

    def _fail(self, why: str) -> None:
        """Answers that the server owes become errors."""
        for asked in self._asked.values():
            if not asked.answer.done():
                asked.answer.set_result(error_answer(asked.request, -32000, why))

    async def _settled(self, *others: asyncio.Task[None]) -> None:
        """Within the time of grace: the others end, and answers that can still be given reach the client."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limits.grace_s):
                if others:
                    await asyncio.wait((*others, self._cut), return_when=asyncio.FIRST_COMPLETED)
                if self._answers:
                    await asyncio.wait(self._answers.values())
                await self._client_in.drain()


def _key(identity: JsonValue) -> str:
    """1 and "1" are two ids."""
    return repr(identity)


def _messages(line: bytes, minds: Callable[[JsonValue], bool]) -> list[Received]:
    """The message of a line, empty if it is none; a batch is taken apart only if somebody minds one of its messages."""
    message = load(line)
    if isinstance(message, list) and any(minds(item) for item in message):
        return [_received(item, json_line(item)) for item in message]
    return [_received(message, line)]


def _received(message: JsonValue, raw: bytes) -> Received:
    return Received(message if isinstance(message, dict) else {}, raw)


async def _lines(stream: asyncio.StreamReader, limits: Limits, whose: str) -> AsyncIterator[bytes]:
    """Lines with their newline; the last may have none."""
    while True:
        try:
            yield await stream.readuntil(b"\n")
        except asyncio.IncompleteReadError as end:
            if end.partial:
                yield end.partial
            return
        except asyncio.LimitOverrunError:
            raise _Ended(f"{whose} of more than {limits.max_message_bytes} bytes; expected a newline before that") from None

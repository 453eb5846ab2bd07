"""A child process with pipes that leaves nothing behind, and pipes of our own, for asyncio. POSIX only."""

import asyncio
import os
import shlex
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from auditgap.errors import UsageError

__all__ = ["pipes_of", "started"]

_STOP_S = 0.4


@asynccontextmanager
async def pipes_of(
    stdin: BinaryIO, stdout: BinaryIO, *, limit: int
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A reader and a writer on two pipes, which are closed at the end.

    Raises:
        UsageError: one of them is not a pipe.
    """
    loop = asyncio.get_running_loop()
    reader, unread = asyncio.StreamReader(limit=limit), asyncio.StreamReader()
    opened: list[asyncio.BaseTransport] = []
    try:
        incoming, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), stdin)
        opened.append(incoming)
        outgoing, protocol = await loop.connect_write_pipe(lambda: asyncio.StreamReaderProtocol(unread), stdout)
        opened.append(outgoing)
        yield reader, asyncio.StreamWriter(outgoing, protocol, None, loop)
    except ValueError as error:
        if len(opened) == 2:
            raise
        raise UsageError(f"expected pipes for stdin and stdout, as an MCP client opens them ({error})") from None
    finally:
        for transport in opened:
            transport.close()
        await asyncio.sleep(0)


@asynccontextmanager
async def started(
    command: Sequence[str], *, limit: int, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with pipes in a group of its own; at the end nothing of that group runs any more.

    Raises:
        UsageError: the command cannot be started.
    """
    pipe = asyncio.subprocess.PIPE
    try:
        server = await asyncio.create_subprocess_exec(
            *command, stdin=pipe, stdout=pipe, limit=limit, env=env, cwd=cwd, start_new_session=True
        )
    except OSError as error:
        raise UsageError(f"expected a command that starts an MCP server, got `{shlex.join(command)}`: {error}") from None
    try:
        yield server
    finally:
        await _stopped(server)


async def _stopped(server: asyncio.subprocess.Process) -> None:
    """End the server and all that it started: asked first, then killed. Every wait is bounded."""
    try:
        if server.stdin is not None:
            server.stdin.close()
        if server.returncode is None:
            _signal(server, signal.SIGTERM)
            with suppress(TimeoutError):
                await asyncio.wait_for(server.wait(), _STOP_S)
    finally:
        _signal(server, signal.SIGKILL)
    with suppress(TimeoutError):
        async with asyncio.timeout(_STOP_S):
            await server.wait()
            while server.stdout is not None and await server.stdout.read(2**16):  # a pipe left unread is never closed
                pass
    await asyncio.sleep(0)


def _signal(server: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(server.pid, number)

"""Milliseconds per tool call with and without the MCP proxy: by middleware in the process, and over stdio to a server.

Wall time, because two processes hand over to each other. Both ways are open at once and take turns, 20 calls each, so that what
slows one slows the other; start-up is not in it. `python -m bench.proxy` runs this alone.
"""

import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, redirect_stderr
from pathlib import Path

from mcp import Client, StdioServerParameters
from mcp.server.mcpserver import MCPServer

from auditgap.release import EventLog, FaultPlan, Injector
from auditgap.release.injection.exchange import Exchange
from auditgap.release.injection.mcp_middleware import fault_middleware
from bench.rows import Row, measured
from bench.timing import spread

__all__ = ["proxy_rows"]

Call = Callable[[], Awaitable[object]]
_TURN = 20
_OFFICIAL = """
from mcp.server.mcpserver import MCPServer
server = MCPServer("bench")
@server.tool()
def echo(text: str) -> str:
    return text
server.run("stdio")
"""
_PLAIN = """
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    result = {"content": [{"type": "text", "text": asked["params"]["arguments"]["text"]}]}
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""
_PROXY = ("-c", "from auditgap.cli.release_proxy import proxy_mcp; proxy_mcp()")


def proxy_rows(*, n_calls: int = 1000) -> list[Row]:
    """In the process; over stdio with the official SDK at both ends; over stdio with nothing but JSON at both ends."""
    return asyncio.run(_rows(n_calls))


async def _rows(n_calls: int) -> list[Row]:
    return [
        _row("MCP call in the process, by middleware", await _in_process(n_calls), goal=5),
        _row("MCP call over stdio, SDK client and server", await _sdk_over_stdio(n_calls), goal=20),
        _row("MCP call over stdio, plain JSON client and server", await _plain_over_stdio(n_calls), goal=20),
    ]


def _row(name: str, milliseconds: dict[str, list[float]], *, goal: float) -> Row:
    spreads = {way: spread(found) for way, found in milliseconds.items()}
    added = [one - other for one, other in zip(milliseconds["proxied"], milliseconds["direct"], strict=True)]
    also = {
        "without the proxy, ms": spreads["direct"].median,
        "added, median of the differences, ms": statistics.median(added),
        "99th percentile through the proxy, ms": statistics.quantiles(milliseconds["proxied"], n=100)[-1],
    }
    return measured(name, spreads["proxied"], goal=goal, better="lower", unit="ms", also=also)


async def _in_turns(calls: dict[str, Call], n_calls: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {way: [] for way in calls}
    for turn in range(1 + n_calls // _TURN):
        for way, call in calls.items():
            for _ in range(_TURN):
                began = time.perf_counter()
                await call()
                if turn:  # the first turn warms up
                    found[way].append(1000 * (time.perf_counter() - began))
    return found


async def _in_process(n_calls: int) -> dict[str, list[float]]:
    async with AsyncExitStack() as stack:
        calls: dict[str, Call] = {}
        for way in ("direct", "proxied"):
            server = MCPServer("bench")
            server.add_tool(_echo, name="echo")
            if way == "proxied":
                server.middleware.append(fault_middleware(Exchange(Injector(FaultPlan(), EventLog()))))
            client = await stack.enter_async_context(Client(server))
            calls[way] = lambda client=client: client.call_tool("echo", {"text": "hello"})
        return await _in_turns(calls, n_calls)


def _echo(text: str) -> str:
    return text


async def _sdk_over_stdio(n_calls: int) -> dict[str, list[float]]:
    ways = {"direct": ["-c", _OFFICIAL], "proxied": [*_PROXY, "--", sys.executable, "-c", _OFFICIAL]}
    async with AsyncExitStack() as stack:
        calls: dict[str, Call] = {}
        for way, arguments in ways.items():
            client = await stack.enter_async_context(Client(StdioServerParameters(command=sys.executable, args=arguments)))
            calls[way] = lambda client=client: client.call_tool("echo", {"text": "hello"})
        return await _in_turns(calls, n_calls)


async def _plain_over_stdio(n_calls: int) -> dict[str, list[float]]:
    pipe = asyncio.subprocess.PIPE
    with tempfile.TemporaryDirectory() as folder:
        files = ["--events", f"{folder}/events.jsonl", "--observe", f"{folder}/observed.jsonl"]
        ways = {"direct": ["-c", _PLAIN], "proxied": [*_PROXY, *files, "--", sys.executable, "-c", _PLAIN]}
        servers = {
            way: await asyncio.create_subprocess_exec(sys.executable, *a, stdin=pipe, stdout=pipe) for way, a in ways.items()
        }
        found = await _in_turns({way: _asker(server) for way, server in servers.items()}, n_calls)
        for server in servers.values():
            await server.communicate(b"")
    return found


def _asker(server: asyncio.subprocess.Process) -> Call:
    line = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "hello"}}}
    raw = json.dumps(line).encode() + b"\n"

    async def call() -> bytes:
        if server.stdin is None or server.stdout is None:
            raise RuntimeError("the server is started with pipes")
        server.stdin.write(raw)
        return await server.stdout.readline()

    return call


if __name__ == "__main__":
    with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
        rows = proxy_rows()
    print(json.dumps([row.model_dump(mode="json") for row in rows], indent=2))

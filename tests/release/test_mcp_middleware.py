"""In the process: the same faults by middleware, on a server of the official SDK that is not changed otherwise."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_faults import CALLS, CLOSED, LISTS, SILENT, Case, Wire, request_of, silent
from servers.official import server

from auditgap.release import EventLog, FaultPlan, Injector, Observation
from auditgap.release.injection.exchange import Exchange
from auditgap.release.injection.mcp_middleware import fault_middleware


@contextmanager
def faulted(plan: FaultPlan, seen: list[Observation] | None = None) -> Iterator[Exchange]:
    exchange = Exchange(Injector(plan, EventLog()), server="bank", observe=None if seen is None else seen.append)
    middleware = fault_middleware(exchange)
    server.middleware.append(middleware)
    try:
        yield exchange
    finally:
        server.middleware.remove(middleware)


async def ask(client: Client, case: Case, within_s: float = 5) -> Wire:
    """The answer as wire JSON."""
    try:
        async with asyncio.timeout(within_s):
            if case.channel == "tools/list":
                found = await client.list_tools()
            else:
                found = await client.call_tool("transfer", request_of(case, 0)["params"]["arguments"])
    except TimeoutError:
        return SILENT
    except MCPError as error:
        closed = error.message == "Connection closed"
        return CLOSED if closed else {"error": error.error.model_dump(mode="json", exclude_none=True)}
    return {"result": found.model_dump(mode="json", by_alias=True, exclude_none=True)}


@pytest.mark.parametrize(
    ("case", "mode"),
    [*((case, "auto") for case in (*CALLS, *LISTS)), *((case, "legacy") for case in (CALLS[7], CALLS[10], CALLS[16], LISTS[11]))],
    ids=lambda given: given if isinstance(given, str) else given.label,
)
def test_every_fault_acts_and_is_seen(case: Case, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "effects"
    ledger.touch()
    monkeypatch.setenv("AUDITGAP_TEST_EFFECTS", str(ledger))

    def n_effects() -> int:
        return len(ledger.read_text().splitlines())

    async def session() -> None:
        async with Client(server, mode=mode) as client:
            clean = await ask(client, case)
            before = n_effects()
            if case.kind == "result_schema_violation":
                with pytest.raises(RuntimeError, match="structured content"):
                    await ask(client, case)
            else:
                answer = await ask(client, case, within_s=0.2 if case.seen is silent else 5)
                assert case.seen(answer, clean), answer
            assert n_effects() - before == case.n_effects
            assert await ask(client, case) == clean

    with faulted(case.plan()) as exchange:
        asyncio.run(session())
    assert exchange.silent() == ()
    assert len(exchange.injector.log.events("fault_fired")) == case.params.get("copies", 1)


def test_without_a_fault_the_agent_gets_what_it_got_before() -> None:
    seen: list[Observation] = []

    async def session() -> tuple[Wire, ...]:
        async with Client(server) as client:
            return await ask(client, LISTS[0]), await ask(client, CALLS[0])

    before = asyncio.run(session())
    with faulted(FaultPlan(), seen) as exchange:
        assert asyncio.run(session()) == before
    assert [observation.what for observation in seen] == ["server", "tools"]
    listed = before[0]["result"]
    assert seen[1].content == {name: listed[name] for name in ("tools", "ttlMs", "cacheScope")}
    assert [(e.kind, e.server, e.outcome) for e in exchange.injector.log.events()] == [
        ("list", "bank", None),
        ("call", "bank", None),
        ("result", "bank", "ok"),
    ]


def test_an_error_of_the_server_itself_passes_unchanged() -> None:
    async def session() -> str:
        async with Client(server) as client:
            with pytest.raises(MCPError) as raised:
                await client.session.get_prompt("absent")
            result = await client.call_tool("absent", {})
            return f"{raised.value.code} {result.is_error}"

    before = asyncio.run(session())
    with faulted(FaultPlan()):
        assert asyncio.run(session()) == before

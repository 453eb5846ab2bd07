"""Over stdio an unmodified server is reached byte for byte, every fault acts once and is seen, and nothing is left running."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp_faults import CALLS, CLOSED, LISTS, SILENT, Case, Wire, request_of, silent

from auditgap.cli.release_proxy import proxy_mcp
from auditgap.errors import CannotMeasure, UsageError
from auditgap.release import EventLog, FaultPlan, Injector, Observation, When, read_events, read_observations
from auditgap.release.injection.exchange import Exchange, Limits
from auditgap.release.injection.mcp_stdio import relay

SERVERS = Path(__file__).parent / "servers"
PLAIN = (sys.executable, "-S", "-E", str(SERVERS / "plain.py"))
OFFICIAL = (sys.executable, str(SERVERS / "official.py"))
INITIALIZE: Wire = {
    "jsonrpc": "2.0",
    "id": "init",
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "raw", "version": "0"}},
}
INITIALIZED: Wire = {"jsonrpc": "2.0", "method": "notifications/initialized"}


class RawClient:
    """Writes lines and reads lines; knows nothing of MCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.lines: list[bytes] = []

    def send(self, *messages: Wire) -> None:
        self.writer.write(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    async def answer(self, identity: object, within_s: float = 5) -> Wire:
        """The answer to a request: CLOSED at the end of the stream, SILENT if there is none in time."""
        try:
            async with asyncio.timeout(within_s):
                while line := await self.reader.readline():
                    self.lines.append(line)
                    message = json.loads(line) if line.startswith(b"{") else {}
                    if message.get("id") == identity and "method" not in message:
                        return message
        except TimeoutError:
            return SILENT
        return CLOSED

    async def ask(self, message: Wire, within_s: float = 5) -> Wire:
        self.send(message)
        return await self.answer(message["id"], within_s)


@asynccontextmanager
async def proxied(
    command: Sequence[str], exchange: Exchange, limits: Limits | None = None
) -> AsyncIterator[tuple[RawClient, asyncio.Task[None]]]:
    """A client with the proxy before it, in this process, and the server in another."""
    (from_client, to_proxy), (from_proxy, to_client) = os.pipe(), os.pipe()
    stdin, stdout = os.fdopen(from_client, "rb", buffering=0), os.fdopen(to_client, "wb", buffering=0)
    ours = os.fdopen(from_proxy, "rb", buffering=0), os.fdopen(to_proxy, "wb", buffering=0)
    proxy = asyncio.create_task(relay(command, exchange, stdin=stdin, stdout=stdout, limits=limits))
    loop, reader = asyncio.get_running_loop(), asyncio.StreamReader(limit=2**24)
    incoming, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), ours[0])
    outgoing, protocol = await loop.connect_write_pipe(lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader()), ours[1])
    try:
        yield RawClient(reader, asyncio.StreamWriter(outgoing, protocol, None, loop)), proxy
        outgoing.close()
        async with asyncio.timeout(10):
            await asyncio.wait({proxy})
    finally:
        outgoing.close()
        incoming.close()
        proxy.cancel()
        await asyncio.gather(proxy, return_exceptions=True)


def exchange_of(plan: FaultPlan | None = None, seen: list[Observation] | None = None) -> Exchange:
    return Exchange(Injector(plan or FaultPlan(), EventLog()), observe=None if seen is None else seen.append)


def effects(path: Path) -> int:
    return len(path.read_text().splitlines()) if path.exists() else 0


async def _three_times(client: RawClient, case: Case, count) -> None:
    """Ask three times; the second is faulted."""
    before = count()
    clean = await client.ask(request_of(case, 1))
    assert "result" in clean, clean
    after_one = count()
    started = time.monotonic()
    answer = await client.ask(request_of(case, 2), within_s=0.3 if case.seen is silent else 5)
    assert case.seen(answer, clean), answer
    assert count() - after_one == case.n_effects
    assert time.monotonic() - started >= float(case.params.get("latency_ms", 0)) / 1000
    if answer != CLOSED:
        again = await client.ask(request_of(case, 3))
        assert again["result"] == clean["result"]
        assert count() - after_one - case.n_effects == after_one - before


@pytest.mark.parametrize("case", [*CALLS, *LISTS], ids=lambda case: case.label)
def test_every_fault_acts_on_a_plain_server_and_is_seen(case: Case, tmp_path: Path) -> None:
    ledger = tmp_path / "effects"

    async def session() -> Exchange:
        exchange = exchange_of(case.plan())
        async with proxied((*PLAIN, str(ledger)), exchange, Limits(grace_s=0.1)) as (client, _):
            await client.ask(INITIALIZE)
            await _three_times(client, case, lambda: effects(ledger))
        return exchange

    exchange = asyncio.run(session())
    assert exchange.silent() == ()
    fired = exchange.injector.log.events("fault_fired")
    assert {(e.name, e.call_id) for e in fired} == {(case.kind, "2")}


def test_every_fault_acts_on_a_server_of_the_official_sdk_in_one_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = tmp_path / "effects"
    monkeypatch.setenv("AUDITGAP_TEST_EFFECTS", str(ledger))
    cases = [case for case in (*CALLS, *LISTS) if case.kind != "disconnect"]
    nth = {"tools/call": 0, "tools/list": 0}
    faults = []
    for number, case in enumerate(cases):
        nth[case.channel] += 2  # a clean request, then the faulted one
        faults.append(case.fault(nth[case.channel]).model_copy(update={"id": f"{number}"}))
    exchange = exchange_of(FaultPlan(faults=tuple(faults)))

    async def session() -> None:
        async with proxied(OFFICIAL, exchange, Limits(grace_s=0.1)) as (client, _):
            await client.ask(INITIALIZE)
            client.send(INITIALIZED)
            for number, case in enumerate(cases):
                clean = await client.ask(request_of(case, 2 * number))
                before = effects(ledger)
                answer = await client.ask(request_of(case, 2 * number + 1), within_s=0.2 if case.seen is silent else 5)
                assert case.seen(answer, clean), (case, answer)
                assert effects(ledger) - before == case.n_effects, case

    asyncio.run(session())
    assert exchange.silent() == ()
    assert [event.call_id for event in exchange.injector.log.events("fault_fired")][-1] == str(2 * len(cases) - 1)


def _dialogue(*tools: str) -> bytes:
    calls = [
        {"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": {"name": tool, "arguments": {"to": "Zoë", "amount": 3}}}
        for n, tool in enumerate(tools, start=10)
    ]
    plain = [INITIALIZE, INITIALIZED, {"jsonrpc": "2.0", "id": "1", "method": "tools/list"}, *calls]
    spaced = b'  {"method" :"ping","id":  1e2, "jsonrpc":"2.0"}\r\n'
    return b"".join(json.dumps(message, ensure_ascii=False).encode() + b"\n" for message in plain) + spaced


async def _both_sides(command: Sequence[str], said: bytes, exchange: Exchange, answered: int) -> bytes:
    """What a client reads that writes everything at once and leaves when it has its answers."""
    async with proxied(command, exchange) as (client, _):
        client.writer.write(said)
        for _ in range(answered):
            client.lines.append(await client.reader.readline())
    return b"".join(client.lines) + await client.reader.read()


@pytest.mark.parametrize("watching", [False, True], ids=["no faults", "faults that are not due"])
def test_a_clean_exchange_has_the_very_same_bytes_in_both_directions(tmp_path: Path, watching: bool) -> None:
    said = _dialogue("transfer", "balance", "echo", "garbage", "unknown", "transfer")
    direct = subprocess.run(PLAIN, input=said, capture_output=True, timeout=10, check=True).stdout
    received = tmp_path / "received"
    plan = FaultPlan(faults=tuple(c.fault(99).model_copy(update={"id": str(n)}) for n, c in enumerate((*CALLS, *LISTS))))
    command = ("sh", "-c", f'tee "{received}" | "{PLAIN[0]}" -S -E "{PLAIN[3]}"')
    through = asyncio.run(_both_sides(command, said, exchange_of(plan if watching else None), direct.count(b"\n")))
    assert through == direct
    assert b"this is not JSON" in direct
    assert received.read_bytes() == said


def test_a_server_of_the_official_sdk_answers_with_the_same_bytes_through_the_proxy() -> None:
    lines = _dialogue("balance", "transfer").splitlines(keepends=True)

    async def one_by_one(exchange: Exchange | None) -> list[bytes]:
        if exchange is not None:
            async with proxied(OFFICIAL, exchange) as (client, _):
                return await _lockstep(client.reader, client.writer)
        pipe = asyncio.subprocess.PIPE
        server = await asyncio.create_subprocess_exec(*OFFICIAL, stdin=pipe, stdout=pipe)
        found = await _lockstep(server.stdout, server.stdin)
        server.stdin.close()
        await server.wait()
        return found

    async def _lockstep(reader, writer) -> list[bytes]:
        found = []
        for line in lines[:-1]:
            writer.write(line)
            if b'"id"' in line:
                found.append(await asyncio.wait_for(reader.readline(), 10))
        return found

    direct, through = asyncio.run(one_by_one(None)), asyncio.run(one_by_one(exchange_of()))
    assert len(direct) == 4
    assert through == direct


def test_what_went_past_is_observed_as_the_agent_got_it(tmp_path: Path) -> None:
    seen: list[Observation] = []
    exchange = exchange_of(LISTS[6].plan(), seen)  # schema_widen on the second list

    async def session() -> None:
        async with proxied(PLAIN, exchange) as (client, _):
            await client.ask(INITIALIZE)
            for identity in (1, 2):
                await client.ask({"jsonrpc": "2.0", "id": identity, "method": "tools/list"})
            await client.ask(request_of(CALLS[0], 3))

    asyncio.run(session())
    server, clean, widened = seen
    assert (server.what, server.server, server.content["protocolVersion"]) == ("server", "plain-bank", "2025-06-18")
    assert server.content["serverInfo"]["version"] == "1.2"
    assert [tool["name"] for tool in clean.content["tools"]] == ["transfer", "balance", "echo"]
    assert "required" in clean.content["tools"][0]["inputSchema"]
    assert "required" not in widened.content["tools"][0]["inputSchema"]
    kinds = [(e.kind, e.call_id, e.tool, e.outcome) for e in exchange.injector.log.events()]
    assert kinds == [
        ("list", "1", None, None),
        ("fault_fired", "2", "transfer", "schema_widen"),
        ("list", "2", None, None),
        ("call", "3", "transfer", None),
        ("result", "3", "transfer", "ok"),
    ]


def _session(exchange: Exchange, steps, command: Sequence[str] = PLAIN, limits: Limits | None = None):
    """Initialise, do the steps, leave; what the steps gave, and what the proxy raised."""

    async def session():
        async with proxied(command, exchange, limits) as (client, proxy):
            assert "result" in await client.ask(INITIALIZE)
            found = await steps(client)
        return found, proxy.exception() if proxy.done() and not proxy.cancelled() else None

    return asyncio.run(session())


def _call(identity: int, tool: str, **arguments: str | int) -> Wire:
    return {"jsonrpc": "2.0", "id": identity, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}


def test_an_answer_that_is_held_is_overtaken_by_a_later_one() -> None:
    case = Case("out_of_order", silent)
    exchange = exchange_of(FaultPlan(faults=(case.fault(1),)))

    async def steps(client: RawClient) -> list[int]:
        client.send(_call(1, "transfer", to="bob", amount=1), _call(2, "echo", text="x"))
        await client.answer(1)
        return [json.loads(line)["id"] for line in client.lines if b"result" in line]

    assert _session(exchange, steps)[0] == ["init", 2, 1]
    assert exchange.silent() == ()


def test_an_answer_that_nothing_overtakes_is_late_and_the_fault_counts_as_silent() -> None:
    exchange = exchange_of(FaultPlan(faults=(Case("out_of_order", silent, params={"hold_s": 0.05}).fault(1),)))

    async def steps(client: RawClient) -> Wire:
        return await client.ask(_call(1, "transfer", to="bob", amount=1))

    assert "result" in _session(exchange, steps)[0]
    assert exchange.silent() == ("out_of_order",)


def test_permission_comes_and_goes() -> None:
    flap = Case("permission_flap", silent).fault().model_copy(update={"when": When(first=2)})
    exchange = exchange_of(FaultPlan(faults=(flap,)))

    async def steps(client: RawClient) -> list[bool]:
        return ["result" in await client.ask(_call(n, "transfer", to="bob", amount=1)) for n in range(6)]

    assert _session(exchange, steps)[0] == [True, False, True, False, True, False]


def test_a_request_that_the_client_cancels_is_no_longer_held() -> None:
    exchange = exchange_of(FaultPlan(faults=(Case("hang", silent).fault(1),)))
    cancel: Wire = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}

    async def steps(client: RawClient) -> Wire:
        client.send(_call(1, "transfer", to="bob", amount=1), cancel)
        return await client.ask(_call(1, "echo", text="the id is free again"))

    assert "free again" in str(_session(exchange, steps)[0])


def test_what_cannot_be_recorded_ends_the_session_instead_of_passing_as_clean() -> None:
    def full(observation: Observation) -> None:
        raise OSError("no space left")

    exchange = Exchange(Injector(FaultPlan(), EventLog()), observe=full)

    async def session() -> None:
        async with proxied(PLAIN, exchange) as (client, proxy):
            assert await client.ask(INITIALIZE) == CLOSED
            proxy.result()

    with pytest.raises(OSError, match="no space left"):
        asyncio.run(session())


def test_a_list_in_pages_is_observed_as_one() -> None:
    seen: list[Observation] = []
    exchange = exchange_of(seen=seen)
    pages = {None: (["a", "b"], "2"), "2": (["c"], None)}

    async def ask(request: Wire) -> Wire:
        names, more = pages[request.get("params", {}).get("cursor")]
        after = {"nextCursor": more} if more else {}
        return {"jsonrpc": "2.0", "id": request["id"], "result": {"tools": [{"name": name} for name in names], **after}}

    async def session() -> None:
        for cursor in ({}, {"params": {"cursor": "2"}}):
            request = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", **cursor}
            await exchange.answer(request, exchange.due(request), ask)

    asyncio.run(session())
    assert [[tool["name"] for tool in one.content["tools"]] for one in seen] == [["a", "b", "c"]]


def test_a_stateless_server_is_known_by_the_name_in_its_results() -> None:
    exchange = exchange_of()

    async def ask(request: Wire) -> Wire:
        meta = {"io.modelcontextprotocol/serverInfo": {"name": "stateless", "version": "1"}}
        return {"jsonrpc": "2.0", "id": request["id"], "result": {"_meta": meta, "content": [], "resultType": "complete"}}

    asyncio.run(exchange.answer(_call(1, "x"), (), ask))
    assert exchange.server == "stateless"


def test_a_question_back_to_the_client_is_not_tampered_with() -> None:
    exchange = exchange_of(CALLS[10].plan())
    question: Wire = {"jsonrpc": "2.0", "id": 1, "result": {"resultType": "input_required", "inputRequests": {}}}

    async def ask(request: Wire) -> Wire:
        return question

    assert asyncio.run(exchange.answer(_call(1, "transfer"), (CALLS[10].fault(1),), ask)) is question


def test_a_batch_is_taken_apart_only_if_something_in_it_is_watched() -> None:
    async def steps(client: RawClient) -> list[bytes]:
        batch = [{"jsonrpc": "2.0", "id": 5, "method": "ping"}, _call(6, "echo", text="x")]
        client.writer.write(json.dumps(batch).encode() + b"\n")
        await client.answer(6)
        return client.lines[1:]

    ping, echo = _session(exchange_of(), steps)[0]
    assert json.loads(ping) == {"jsonrpc": "2.0", "id": 5, "result": {}}
    assert json.loads(echo)["id"] == 6


def test_a_result_that_has_no_canonical_form_passes_and_has_a_digest() -> None:
    exchange = exchange_of()

    async def steps(client: RawClient) -> Wire:
        client.writer.write(
            b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"balance","arguments":{"text":"\\ud800"}}}\n'
        )
        return await client.answer(1)

    assert "9007199254740993" in str(_session(exchange, steps)[0])
    assert all(event.content for event in exchange.injector.log.events())


SMALL = Limits(max_message_bytes=100_000, answer_timeout_s=0.2, max_open=2, max_unasked=500, grace_s=0.1)


def test_a_server_that_hangs_is_an_error_within_the_time_allowed() -> None:
    async def steps(client: RawClient) -> Wire:
        return await client.ask(_call(1, "hang"))

    started = time.monotonic()
    answer, raised = _session(exchange_of(), steps, limits=SMALL)
    assert answer["error"]["code"] == -32001
    assert "no answer to tools/call within 0.2 s" in answer["error"]["message"]
    assert raised is None
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        ("flood", r"floods: \d+ messages between two answers, expected 500 at most"),
        ("endless", "sent a message of more than 100000 bytes; expected a newline"),
        ("die", r"\(exit code 7\) closed its output while the client was connected"),
    ],
)
def test_a_server_that_floods_or_dies_ends_the_session_with_a_reason(tool: str, says: str) -> None:
    async def steps(client: RawClient) -> tuple[Wire, Wire]:
        return await client.ask(_call(1, tool)), await client.answer("nothing more")

    (answer, after), raised = _session(exchange_of(), steps, limits=SMALL)
    assert answer["error"] == {"code": -32000, "message": "the session with the MCP server ended before it answered"}
    assert after == CLOSED
    with pytest.raises(CannotMeasure, match=says):
        raise raised


def test_too_many_open_requests_are_refused_and_the_others_are_not_lost() -> None:
    async def steps(client: RawClient) -> list[Wire]:
        client.send(*(_call(n, "transfer", to="bob", amount=1) for n in (1, 2, 3)))
        return [await client.answer(3), await client.answer(2), await client.ask(_call(4, "echo", text="x"))]

    refused, *later = _session(exchange_of(FaultPlan(faults=(Case("latency", silent).fault(1),))), steps, limits=SMALL)[0]
    assert "2 requests wait for an answer" in refused["error"]["message"]
    assert all("result" in answer for answer in later)


def test_a_server_that_reads_nothing_ends_the_session() -> None:
    async def session() -> None:
        async with proxied(("sleep", "60"), exchange_of(), SMALL) as (client, proxy):
            client.send(*({"jsonrpc": "2.0", "method": "x", "params": {"fill": "y" * 50_000}} for _ in range(10)))
            await asyncio.wait({proxy}, timeout=5)
            proxy.result()

    with pytest.raises(CannotMeasure, match=r"`sleep 60` has taken no input for 0.2 s"):
        asyncio.run(session())


@pytest.mark.parametrize(
    ("command", "error", "says"),
    [
        (("no-such-server", "x"), UsageError, "expected a command that starts an MCP server, got `no-such-server x`"),
        ((sys.executable, "-S", "-c", "raise SystemExit(3)"), CannotMeasure, r"\(exit code 3\) closed its output"),
    ],
)
def test_a_server_that_does_not_start_is_named(command: Sequence[str], error: type[Exception], says: str) -> None:
    async def session() -> None:
        async with proxied(command, exchange_of()) as (_, proxy):
            await asyncio.wait({proxy}, timeout=5)
            proxy.result()

    with pytest.raises(error, match=says):
        asyncio.run(session())


def test_files_instead_of_pipes_are_refused(tmp_path: Path) -> None:
    from_client, to_proxy = os.pipe()
    ends = os.fdopen(from_client, "rb"), os.fdopen(to_proxy, "wb"), (tmp_path / "out").open("wb")
    with ends[0] as stdin, ends[1], ends[2] as file, pytest.raises(UsageError, match="expected pipes for stdin and stdout"):
        asyncio.run(relay(PLAIN, exchange_of(), stdin=stdin, stdout=file))


def test_nothing_of_the_servers_process_group_is_left_running(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    stubborn = f'trap "" TERM; sleep 61 & echo $$ $! > "{pids}"; exec 3<&0; cat; sleep 62'

    async def session() -> None:
        async with proxied(("sh", "-c", stubborn), exchange_of(), Limits(grace_s=0.05)) as (client, _):
            client.writer.write(b"hello\n")
            assert await client.reader.readline() == b"hello\n"

    asyncio.run(session())
    assert not [pid for pid in pids.read_text().split() if _runs(pid)]


def test_a_flood_that_nobody_reads_fills_pipes_and_not_memory() -> None:
    limits = Limits(max_message_bytes=100_000, max_unasked=10**9, grace_s=0.05)

    async def session() -> int:
        async with proxied(PLAIN, exchange_of(), limits) as (client, _):
            await client.ask(INITIALIZE)
            client.reader._limit = 1000  # the client stops reading
            client.send(_call(1, "flood"))
            await asyncio.sleep(0.2)
            before = _resident_bytes()
            await asyncio.sleep(0.6)
            return _resident_bytes() - before

    assert asyncio.run(session()) < 2_000_000


COMMAND = (sys.executable, "-c", "from auditgap.cli.release_proxy import proxy_mcp; proxy_mcp()")


def test_the_sdks_own_client_sees_the_faults_of_the_command_line_proxy_and_a_silent_one_is_named(tmp_path: Path) -> None:
    faults = (CALLS[10].fault(2), LISTS[11].fault(1), CALLS[7].fault(9))
    (tmp_path / "faults.json").write_text(FaultPlan(faults=faults).model_dump_json())
    files = {name: tmp_path / f"{name}.jsonl" for name in ("observe", "events")}
    options = [*COMMAND[1:], "--plan", str(tmp_path / "faults.json"), *(f"--{name}={path}" for name, path in files.items())]
    server = StdioServerParameters(command=COMMAND[0], args=[*options, "--", *OFFICIAL])

    async def session() -> tuple[str, ...]:
        with (tmp_path / "stderr").open("w") as errors:
            async with Client(stdio_client(server, errlog=errors)) as client:
                (transfer, _) = (await client.list_tools()).tools
                texts = [(await client.call_tool("transfer", {"to": "bob", "amount": 3})).content[0].text for _ in range(2)]
        return (transfer.description or "", *texts)

    description, clean, injected = asyncio.run(session())
    assert "account 0000" in description
    assert "0000" not in clean
    assert "account 0000" in injected
    assert {event.name for event in read_events(files["events"]) if event.kind == "fault_fired"} == {
        "result_injection",
        "description_poison",
    }
    assert {observation.server for observation in read_observations(files["observe"])} == {"official-bank"}
    assert "fault 'rate_limit' never acted" in (tmp_path / "stderr").read_text()


def test_a_signal_ends_the_command_line_proxy_and_its_server(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    script = f'echo $$ > "{pid_file}"; exec cat'
    pipe = subprocess.PIPE
    with subprocess.Popen([*COMMAND, "--", "sh", "-c", script], stdin=pipe, stdout=pipe) as proxy:
        proxy.stdin.write(b"ready\n")
        proxy.stdin.flush()
        assert proxy.stdout.readline() == b"ready\n"
        proxy.send_signal(signal.SIGTERM)
        assert proxy.wait(timeout=5) == 0
    assert not _runs(pid_file.read_text().strip())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "expected either `-- COMMAND ...`"),
        (["--upstream", "http://127.0.0.1:1/mcp", "--", "server"], "expected either"),
        (["--listen", "somewhere", "--upstream", "http://127.0.0.1:1/mcp"], "expected HOST:PORT"),
        (["--listen", "127.0.0.1:99999", "--upstream", "http://127.0.0.1:1/mcp"], "expected HOST:PORT"),
    ],
)
def test_a_command_line_that_fits_neither_transport_is_refused(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(proxy_mcp, arguments)
    assert (result.exit_code, says in result.output) == (2, True)


def _runs(pid: str) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"  # a dead process whose new parent has not looked yet does not run


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

"""Over streamable HTTP: the same bytes and headers both ways, the same faults, and only those may use the proxy who should."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from mcp import Client
from mcp.shared.exceptions import MCPError
from mcp_faults import CALLS, CLOSED, LISTS, SILENT, Case, Wire, request_of, silent
from servers.official import server as official
from servers.plain_http import PlainHttp
from starlette.applications import Starlette
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from auditgap.errors import UsageError
from auditgap.release import EventLog, FaultPlan, Injector, Observation
from auditgap.release.injection.exchange import Exchange, Limits
from auditgap.release.injection.hosting import hosted
from auditgap.release.injection.mcp_http import McpProxy, proxy_http

JSON, STREAM = {"accept": "application/json"}, {"accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def plain() -> Iterator[tuple[PlainHttp, str]]:
    server = PlainHttp()
    with hosted(server.app) as url:
        yield server, f"{url}/mcp"


@pytest.fixture(scope="module")
def proxy(plain: tuple[PlainHttp, str]) -> Iterator[tuple[McpProxy, httpx.Client, str]]:
    """One proxy for many cases; each gives it a new exchange."""
    made = McpProxy(plain[1], exchange_of())
    with hosted(made.app()) as url, httpx.Client(timeout=5, trust_env=False) as client:
        yield made, client, f"{url}/mcp"


def exchange_of(plan: FaultPlan | None = None, seen: list[Observation] | None = None) -> Exchange:
    return Exchange(Injector(plan or FaultPlan(), EventLog()), observe=None if seen is None else seen.append)


@contextmanager
def client_of(upstream: str, exchange: Exchange, **options) -> Iterator[tuple[httpx.Client, str]]:
    with proxy_http(upstream, exchange, **options) as url, httpx.Client(timeout=5, trust_env=False) as client:
        yield client, url


def ask(client: httpx.Client, url: str, message: Wire, headers: dict[str, str], within_s: float = 5) -> Wire:
    """The answer, from JSON or an event stream; CLOSED or SILENT if there is none."""
    try:
        body = client.post(url, json=message, headers=headers, timeout=within_s).text
    except httpx.RemoteProtocolError:
        return CLOSED
    except httpx.TimeoutException:
        return SILENT
    texts = [line[5:] for line in body.splitlines() if line.startswith("data:")] or [body]
    return next(answer for text in texts if "method" not in (answer := json.loads(text)))


@pytest.mark.parametrize("headers", [JSON, STREAM], ids=["json", "stream"])
@pytest.mark.parametrize("case", [*CALLS, *LISTS], ids=lambda case: case.label)
def test_every_fault_acts_on_a_plain_server_and_is_seen(
    case: Case, headers: dict[str, str], plain: tuple[PlainHttp, str], proxy: tuple[McpProxy, httpx.Client, str]
) -> None:
    server, (made, client, url) = plain[0], proxy
    made.exchange = exchange = exchange_of(case.plan())
    clean = ask(client, url, request_of(case, 1), headers)
    before, started = server.n_effects, time.monotonic()
    answer = ask(client, url, request_of(case, 2), headers, within_s=0.2 if case.seen is silent else 5)
    assert case.seen(answer, clean), answer
    assert server.n_effects - before == case.n_effects
    assert time.monotonic() - started >= float(case.params.get("latency_ms", 0)) / 1000
    assert ask(client, url, request_of(case, 3), headers)["result"] == clean["result"]
    assert exchange.silent() == ()
    assert {(e.name, e.call_id) for e in exchange.injector.log.events("fault_fired")} == {(case.kind, "2")}


@pytest.mark.parametrize("headers", [JSON, STREAM], ids=["json", "stream"])
def test_a_clean_exchange_has_the_same_bytes_and_headers_in_both_directions(
    headers: dict[str, str], plain: tuple[PlainHttp, str]
) -> None:
    server, upstream = plain
    sent = {**headers, "Authorization": "Bearer upstreams-own", "MCP-Protocol-Version": "2025-06-18", "Mcp-Session-Id": "s-1"}
    messages = [
        b'{"id" :1,"jsonrpc":"2.0", "method":"tools/list"}',
        b'{"id" :2,"jsonrpc":"2.0", "method":"tools/call","params":{"name":"transfer","arguments":{"to":"Zo\xc3\xab"}}}',
        b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
        b'{"id":3,"jsonrpc":"2.0","method":"ping"}',
        b'[{"id":4,"jsonrpc":"2.0","method":"ping"}]',
    ]

    def through(client: httpx.Client, url: str) -> list[tuple[int, bytes, dict[str, str]]]:
        answers = [client.post(url, content=m, headers={**sent, "Content-Type": "application/json"}) for m in messages]
        answers += [client.get(f"{url}?cursor=1", headers=sent), client.delete(url, headers=sent)]
        skipped = ("date", "transfer-encoding")
        return [(a.status_code, a.content, {n: v for n, v in a.headers.items() if n not in skipped}) for a in answers]

    with client_of(upstream, exchange_of()) as (client, url):
        server.requests.clear()
        direct = through(client, upstream)
        got_directly = list(server.requests)
        server.requests.clear()
        assert through(client, url) == direct
    for one, other in zip(got_directly, server.requests, strict=True):
        assert (one[0], one[2]) == (other[0], other[2])
        changed = {name for name in one[1] | other[1] if one[1].get(name) != other[1].get(name)}
        assert changed <= {"accept-encoding", "connection"}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_the_sdks_own_client_and_server_work_through_it_and_a_fault_reaches_the_agent(mode: str) -> None:
    seen: list[Observation] = []
    cases = (CALLS[10], CALLS[7], LISTS[11])
    exchange = exchange_of(FaultPlan(faults=tuple(case.fault(nth) for case, nth in zip(cases, (2, 3, 1), strict=True))), seen)

    async def session(url: str) -> tuple[str, ...]:
        async with Client(url, mode=mode) as client:
            tools = (await client.list_tools()).tools
            texts = [(await client.call_tool("transfer", {"to": "bob", "amount": 3})).content[0].text for _ in range(2)]
            with pytest.raises(MCPError, match="rate limited") as limited:
                await client.call_tool("transfer", {"to": "bob", "amount": 3})
            assert limited.value.data == {"retry_after": 7}
            return (tools[0].description or "", *texts)

    with hosted(official.streamable_http_app()) as upstream, proxy_http(f"{upstream}/mcp", exchange) as url:
        description, clean, injected = asyncio.run(session(url))
    assert "account 0000" in description
    assert "0000" not in clean
    assert "account 0000" in injected
    assert exchange.silent() == ()
    assert {observation.what: observation.server for observation in seen} == {"server": "official-bank", "tools": "official-bank"}


def test_an_answer_that_is_held_is_overtaken_by_a_later_one(plain: tuple[PlainHttp, str]) -> None:
    exchange = exchange_of(FaultPlan(faults=(Case("out_of_order", silent).fault(1),)))

    async def session(url: str) -> list[int]:
        order: list[int] = []

        async def one(identity: int) -> None:
            await client.post(url, json=request_of(CALLS[0], identity), headers=JSON)
            order.append(identity)

        async with httpx.AsyncClient(trust_env=False) as client, asyncio.TaskGroup() as group:
            group.create_task(one(1))
            await asyncio.sleep(0.1)
            group.create_task(one(2))
        return order

    with client_of(plain[1], exchange) as (_, url):
        assert asyncio.run(session(url)) == [2, 1]
    assert exchange.silent() == ()


def test_a_token_is_asked_for_and_is_not_passed_on(plain: tuple[PlainHttp, str]) -> None:
    server, upstream = plain
    with client_of(upstream, exchange_of(), token="secret") as (client, url):
        server.requests.clear()
        for wrong in ({}, {"Proxy-Authorization": "Bearer other"}, {"Authorization": "Bearer secret"}):
            assert client.post(url, json=request_of(CALLS[0], 1), headers={**JSON, **wrong}).status_code == 407
        assert server.requests == []
        right = {**JSON, "Proxy-Authorization": "Bearer secret", "Authorization": "Bearer upstreams-own"}
        assert "result" in client.post(url, json=request_of(CALLS[0], 1), headers=right).json()
    (_, headers, _) = server.requests[0]
    assert headers["authorization"] == "Bearer upstreams-own"
    assert "proxy-authorization" not in headers


def test_a_web_page_cannot_reach_the_server_through_a_name_that_it_controls(plain: tuple[PlainHttp, str]) -> None:
    with client_of(plain[1], exchange_of()) as (client, url):
        answer = client.post(url, json=request_of(CALLS[0], 1), headers={**JSON, "Host": "evil.example"})
    assert answer.status_code == 421


@pytest.mark.parametrize(
    ("upstream", "options", "says"),
    [
        ("ftp://x/mcp", {}, "expected an address"),
        ("http://user:pass@x/mcp", {}, "without credentials"),
        ("http://127.0.0.1:1/mcp", {"host": "0.0.0.0"}, "AUDITGAP_PROXY_TOKEN"),
    ],
)
def test_a_bad_address_is_refused(upstream: str, options: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says), proxy_http(upstream, exchange_of(), **options):
        pass


def _misbehaving() -> Starlette:
    async def hang(request) -> Response:
        await asyncio.sleep(1)
        return Response()

    async def endless(first: bytes):
        while True:
            yield first
            await asyncio.sleep(0)

    def stream(part: bytes, kind: str):
        async def serve(request) -> Response:
            return StreamingResponse(endless(part), media_type=kind)

        return serve

    note = b'data: {"jsonrpc":"2.0","method":"notifications/message"}\n\n'
    routes = {
        "/hang": hang,
        "/flood": stream(note, "text/event-stream"),
        "/event": stream(b"data: xxxxxxxxxxxxxxxx", "text/event-stream"),
        "/body": stream(b"x" * 1000, "application/json"),
        "/broken": lambda request: Response(b'{"not": ', media_type="application/json"),
        "/denied": lambda request: Response("log in first", status_code=401, headers={"WWW-Authenticate": "Bearer"}),
    }
    return Starlette(routes=[Route(path, serve, methods=["POST"]) for path, serve in routes.items()])


@pytest.fixture(scope="module")
def misbehaving() -> Iterator[str]:
    with hosted(_misbehaving()) as url:
        yield url


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("hang", -32001, "no answer to tools/call within 0.3 s"),
        ("flood", -32000, "floods: 51 messages in one response, expected 50 at most"),
        ("event", -32000, "sent a message of more than 20000 bytes"),
        ("body", -32000, "sent a message of more than 20000 bytes"),
    ],
)
def test_a_server_that_hangs_or_floods_is_an_error_in_bounded_time(path: str, code: int, says: str, misbehaving: str) -> None:
    limits = Limits(max_message_bytes=20_000, answer_timeout_s=0.3, max_unasked=50)
    with client_of(f"{misbehaving}/{path}", exchange_of(), limits=limits) as (client, url):
        error = ask(client, url, request_of(CALLS[0], 1), STREAM)["error"]
    assert error["code"] == code
    assert says in error["message"]


def test_what_is_not_an_answer_passes_as_it_is(misbehaving: str) -> None:
    with client_of(f"{misbehaving}/denied", exchange_of(CALLS[0].plan())) as (client, url):
        denied = client.post(url, json=request_of(CALLS[0], 1), headers=JSON)
        broken = client.post(url.replace("denied", "broken"), json=request_of(CALLS[0], 1), headers=JSON)
    assert (denied.status_code, denied.text, denied.headers["www-authenticate"]) == (401, "log in first", "Bearer")
    assert (broken.status_code, broken.content) == (200, b'{"not": ')


def test_a_server_that_is_not_there_and_a_body_that_is_too_large_are_said_so() -> None:
    limits = Limits(max_message_bytes=2000)
    with client_of("http://127.0.0.1:9/mcp", exchange_of(), limits=limits) as (client, url):
        error = ask(client, url, request_of(CALLS[0], 1), JSON)["error"]
        assert "http://127.0.0.1:9/mcp cannot be used (ConnectError); start it" in error["message"]
        assert client.get(url).status_code == 502
        assert client.post(url, content=b"x" * 3000).status_code == 413


def test_the_proxys_own_address_is_not_the_servers() -> None:
    assert McpProxy("http://127.0.0.1:8000/a/mcp", exchange_of()).endpoint.path == "/a/mcp"

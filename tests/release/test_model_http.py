"""The model proxy against a scripted endpoint, judged by the clients that people use: openai, anthropic and plain httpx."""

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import anthropic
import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from auditgap.errors import PlanError, UsageError
from auditgap.release import EventLog, Fault, FaultPlan, Injector, Match, When, observe_into, read_events, read_observations
from auditgap.release.capture import capture_observed
from auditgap.release.injection.hosting import hosted
from auditgap.release.injection.model_http import ModelProxy, ProxyLimits
from auditgap.release.injection.model_serving import proxying

SECRET, SAID = "sk-not-to-be-kept", "my account is 4711 at the river bank"
CALL = {"id": "c1", "type": "function", "function": {"name": "transfer", "arguments": '{"to": "alice", "amount": 3}'}}
TOOL = {
    "type": "function",
    "function": {"name": "transfer", "description": "Move money.", "parameters": {"type": "object", "required": ["to"]}},
}
CLAUDE_TOOL = {"name": "transfer", "description": "Move money.", "input_schema": {"type": "object", "required": ["to"]}}


def _sse(*documents: dict, named: bool = False) -> bytes:
    heads = [f"event: {document['type']}\n" if named else "" for document in documents]
    return "".join(f"{h}data: {json.dumps(d)}\n\n" for h, d in zip(heads, documents, strict=True)).encode()


def _chunk(delta: dict, finish: str | None = None) -> dict:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


def _chat() -> bytes:
    message = {"role": "assistant", "content": "I will send it.", "tool_calls": [CALL]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": None}
    # an odd layout and an integer beyond 2^53: bytes that a proxy which re-serialises would change
    return b'{ "id":"x",  "created":1,"big":90071992547409931,' + json.dumps(
        {"object": "chat.completion", "model": "m", "choices": [choice]}
    ).encode().lstrip(b"{")


def _chat_stream() -> bytes:
    parts = CALL["function"]["arguments"]
    first = {"role": "assistant", "tool_calls": [{**CALL, "index": 0, "function": {"name": "transfer", "arguments": ""}}]}
    rest = [_chunk({"tool_calls": [{"index": 0, "function": {"arguments": part}}]}) for part in (parts[:9], parts[9:])]
    text = [_chunk({"role": "assistant", "content": part}) for part in ("I will ", "send it.")]
    return b": keep-alive\r\n\r\n" + _sse(*text, _chunk(first), *rest, _chunk({}, "tool_calls")) + b"data: [DONE]\n\n"


def _message(content: list) -> dict:
    usage = {"input_tokens": 1, "output_tokens": 1}
    return {
        "id": "x",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": content,
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage,
    }


def _messages() -> bytes:
    call = {"type": "tool_use", "id": "t", "name": "transfer", "input": {"to": "alice", "amount": 3}}
    return json.dumps(_message([{"type": "text", "text": "I will send it."}, call]) | {"stop_reason": "tool_use"}).encode()


def _messages_stream() -> bytes:
    call = {"type": "tool_use", "id": "t", "name": "transfer", "input": {}}
    partial = ['{"to": "al', 'ice", "amount": 3}']
    return _sse(
        {"type": "message_start", "message": _message([])},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "I will send it."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": call},
        *[{"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": p}} for p in partial],
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use", "stop_sequence": None}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
        named=True,
    )


def _response(**changes: object) -> dict:
    said = {"type": "output_text", "text": "I will send it.", "annotations": []}
    message = {"type": "message", "id": "i0", "role": "assistant", "status": "completed", "content": [said]}
    call = {"type": "function_call", "id": "i1", "call_id": "c", "name": "transfer", "arguments": '{"to": "alice"}'}
    return {
        "id": "x",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": "completed",
        "output": [message, call],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        **changes,
    }


def _responses_stream() -> bytes:
    message, call = _response()["output"]
    text = message["content"][0]
    at, by = {"output_index": 0, "content_index": 0, "item_id": "i0"}, {"output_index": 1, "item_id": "i1"}
    events = [
        {"type": "response.created", "response": _response(status="in_progress", output=[])},
        {"type": "response.output_item.added", "output_index": 0, "item": {**message, "content": []}},
        {"type": "response.content_part.added", **at, "part": {**text, "text": ""}},
        {"type": "response.output_text.delta", **at, "delta": "I will "},
        {"type": "response.output_text.delta", **at, "delta": "send it."},
        {"type": "response.output_text.done", **at, "text": text["text"]},
        {"type": "response.content_part.done", **at, "part": text},
        {"type": "response.output_item.done", "output_index": 0, "item": message},
        {"type": "response.output_item.added", "output_index": 1, "item": {**call, "arguments": ""}},
        {"type": "response.function_call_arguments.delta", **by, "delta": '{"to": '},
        {"type": "response.function_call_arguments.delta", **by, "delta": '"alice"}'},
        {"type": "response.function_call_arguments.done", **by, "arguments": call["arguments"]},
        {"type": "response.output_item.done", "output_index": 1, "item": call},
        {"type": "response.completed", "response": _response()},
    ]
    return _sse(*[{**event, "sequence_number": n} for n, event in enumerate(events)], named=True)


ANSWERS = {
    ("/v1/chat/completions", False): _chat(),
    ("/v1/chat/completions", True): _chat_stream(),
    ("/v1/messages", False): _messages(),
    ("/v1/messages", True): _messages_stream(),
    ("/v1/responses", False): json.dumps(_response()).encode(),
    ("/v1/responses", True): _responses_stream(),
    ("/v1/completions", False): b'{"id":"x","object":"text_completion","created":1,"model":"m","choices":'
    b'[{"index":0,"text":"once upon a time","finish_reason":"stop","logprobs":null}]}',
}


class Endpoint:
    """A scripted model endpoint that remembers what it was sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.left = threading.Event()

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if request.url.path == "/slow":
            return StreamingResponse(self._forever(0.05), media_type="text/event-stream")
        if request.url.path == "/flood/v1/messages":
            return StreamingResponse(self._forever(0.0), media_type="application/json")
        if request.url.path == "/silent/v1/messages":
            await asyncio.sleep(1)
        if request.method != "POST":
            return Response(b'{"data": [] }', media_type="application/json", headers={"x-request-id": "r1"})
        stream = bool(json.loads(body).get("stream"))
        answer = ANSWERS[request.url.path.removeprefix("/silent"), stream]
        if not stream:
            return Response(answer, media_type="application/json", headers={"x-request-id": "r1"})
        return StreamingResponse(self._pieces(answer), media_type="text/event-stream")

    async def _pieces(self, answer: bytes):
        for start in range(0, len(answer), 37):  # events straddle the pieces
            yield answer[start : start + 37]

    async def _forever(self, wait_s: float):
        try:
            while True:
                yield b"data: " + b"x" * 1000 + b"\n\n"
                await asyncio.sleep(wait_s)
        finally:
            self.left.set()

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/{path:path}", self.__call__, methods=["GET", "POST"])])


class Bench(NamedTuple):
    """A proxy in front of an endpoint, and what it wrote down."""

    url: str
    direct: str
    endpoint: Endpoint
    injector: Injector
    folder: Path

    def openai(self, **options: object) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=SECRET, **{"max_retries": 0, **options})

    def anthropic(self, **options: object) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=self.url, api_key=SECRET, **{"max_retries": 0, **options})


@contextmanager
def _bench(folder: Path, *faults: Fault, base: str = "", limits: ProxyLimits | None = None, token: str | None = None):
    endpoint, log = Endpoint(), EventLog(folder / "events.jsonl")
    injector = Injector(FaultPlan(faults=faults), log)
    with hosted(endpoint.app()) as direct:
        observe = observe_into(folder / "observations.jsonl")
        try:
            proxy = ModelProxy(direct + base, injector, observe, limits=limits, token=token)
            with hosted(proxy.app()) as url:
                yield Bench(url, direct, endpoint, injector, folder)
        finally:
            log.close()


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> Iterator[Bench]:
    with _bench(tmp_path_factory.mktemp("clean")) as bench:
        yield bench


@pytest.fixture
def bench(tmp_path):
    def make(kind: str, when: When | None = None, match: Match | None = None, **params: object):
        return _bench(
            tmp_path, Fault(id="f", channel="model", kind=kind, when=when or When(), match=match or Match(), params=params)
        )

    return make


def _ask_openai(client: openai.OpenAI, **options: object):
    messages = [{"role": "system", "content": "Be careful."}, {"role": "user", "content": SAID}]
    with client:
        return client.chat.completions.create(model="m", messages=messages, tools=[TOOL], temperature=0.2, **options)


def _ask_anthropic(client: anthropic.Anthropic):
    with client:
        return client.messages.create(
            model="m", max_tokens=9, system="Be careful.", messages=[{"role": "user", "content": SAID}], tools=[CLAUDE_TOOL]
        )


def _streamed_openai(client: openai.OpenAI) -> tuple[str, str, str | None]:
    """text, arguments, finish reason."""
    with client:
        stream = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": SAID}], tools=[TOOL], stream=True
        )
        choices = [chunk.choices[0] for chunk in stream]
    text = "".join(choice.delta.content or "" for choice in choices)
    arguments = "".join(call.function.arguments or "" for choice in choices for call in choice.delta.tool_calls or [])
    return text, arguments, choices[-1].finish_reason


def _streamed_anthropic(client: anthropic.Anthropic) -> anthropic.types.Message:
    with (
        client,
        client.messages.stream(
            model="m", max_tokens=9, messages=[{"role": "user", "content": SAID}], tools=[CLAUDE_TOOL]
        ) as stream,
    ):
        return stream.get_final_message()


def _streamed_response(client: openai.OpenAI):
    with client, client.responses.stream(model="m", input=SAID) as stream:
        return list(stream)[-1].response


@pytest.mark.parametrize(("path", "stream"), list(ANSWERS))
def test_without_a_fault_every_byte_passes_both_ways(clean: Bench, path: str, stream: bool) -> None:
    body = b'{"stream": ' + (b"true" if stream else b"false") + b',  "model":"m", "odd": 1e2, "big": 90071992547409931}'
    headers = {"authorization": f"Bearer {SECRET}", "x-api-key": SECRET, "content-type": "application/json", "x-own": "kept"}
    with httpx.Client(trust_env=False, headers=headers) as client:
        direct = client.post(clean.direct + path, content=body)
        proxied = client.post(clean.url + path, content=body)
    assert proxied.content == direct.content == ANSWERS[path, stream]
    assert proxied.headers.get("x-request-id") == direct.headers.get("x-request-id")
    assert proxied.headers["content-type"] == direct.headers["content-type"]
    assert clean.endpoint.bodies[-1] == clean.endpoint.bodies[-2] == body
    ours, theirs = clean.endpoint.headers[-1], clean.endpoint.headers[-2]
    differ = {name for name in ours | theirs if ours.get(name) != theirs.get(name)}
    assert differ <= {"host", "accept-encoding", "connection"}


def test_any_other_path_is_passed_on_unread(clean: Bench) -> None:
    with httpx.Client(trust_env=False) as client:
        answer = client.get(f"{clean.url}/v1/models?key={SECRET}")
    assert (answer.content, answer.headers["x-request-id"]) == (b'{"data": [] }', "r1")
    asked = clean.injector.log.events("model_request")[-1]
    assert (asked.outcome, asked.detail["path"]) == ("not_read", "/v1/models")


def test_the_clients_people_use_see_the_endpoint(clean: Bench) -> None:
    answer = _ask_openai(clean.openai()).choices[0]
    assert (answer.finish_reason, answer.message.tool_calls[0].function.name) == ("tool_calls", "transfer")
    assert _streamed_openai(clean.openai()) == ("I will send it.", CALL["function"]["arguments"], "tool_calls")
    assert _ask_anthropic(clean.anthropic()).content[1].input == {"to": "alice", "amount": 3}
    assert _streamed_anthropic(clean.anthropic()).content[1].input == {"to": "alice", "amount": 3}
    assert _streamed_response(clean.openai()).output_text == "I will send it."


def test_what_was_asked_is_kept_as_sent_and_nothing_that_was_said(tmp_path) -> None:
    with _bench(tmp_path) as bench:
        _ask_openai(bench.openai(), user=SAID, metadata={"note": SAID}, seed=7)
        _ask_anthropic(bench.anthropic())
        _streamed_anthropic(bench.anthropic())
    seen = read_observations(tmp_path / "observations.jsonl")
    chat, claude, _ = (observation.content["body"] for observation in seen)
    assert chat["messages"][0] == {"role": "system", "content": "Be careful."} and claude["system"] == "Be careful."
    assert chat["tools"] == [TOOL] and claude["tools"] == [CLAUDE_TOOL]
    assert (chat["seed"], chat["temperature"], claude["max_tokens"], chat["model"]) == (7, 0.2, 9, "m")
    manifest = capture_observed(seen[:1], name="canary")
    assert {c.kind for c in manifest.components} == {"model", "system_prompt", "offered_tool", "sampling"}
    assert [c.content for c in manifest.of("sampling")] == [{"seed": 7, "temperature": 0.2}]
    events = read_events(tmp_path / "events.jsonl")
    assert [event.kind for event in events] == ["model_request", "model_response"] * 3
    assert all(
        (event.detail["read"], event.detail["tool_calls"]) == (True, ["transfer"])
        for event in events
        if event.kind == "model_response"
    )
    assert [event.detail["finish"] for event in events if event.kind == "model_response"] == [
        "tool_calls",
        "tool_use",
        "tool_use",
    ]
    written = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert SECRET.encode() not in written and SAID.encode() not in written and b"alice" not in written


def test_credentials_of_remote_tools_are_withheld_from_the_record(tmp_path) -> None:
    remote = {"type": "mcp", "server_url": "https://tools.example", "authorization": SECRET, "headers": {"x": SECRET}}
    with _bench(tmp_path) as bench, httpx.Client(trust_env=False) as client:
        client.post(f"{bench.url}/v1/responses", json={"model": "m", "input": SAID, "tools": [remote]})
        assert json.loads(bench.endpoint.bodies[-1])["tools"] == [remote]
    (seen,) = read_observations(tmp_path / "observations.jsonl")
    assert seen.content["body"]["tools"] == [{**remote, "authorization": "withheld", "headers": "withheld"}]


def test_a_rate_limit_says_how_long_to_wait_and_the_clients_own_retry_gets_through(bench) -> None:
    with bench("llm_429", When(nth=1), retry_after_s=2) as b:
        with pytest.raises(openai.RateLimitError) as refused:
            _ask_openai(b.openai())
        assert refused.value.response.headers["retry-after"] == "2"
        assert not b.endpoint.bodies
        assert _ask_openai(b.openai()).choices
    with bench("llm_429", When(nth=1), retry_after_s=0) as b:
        assert _ask_anthropic(b.anthropic(max_retries=1)).content
        assert b.injector.silent() == ()


@pytest.mark.parametrize("status", [500, 529])
def test_a_failing_endpoint_is_told_in_each_clients_own_words(bench, status: int) -> None:
    with bench("llm_5xx", status=status) as b:
        with pytest.raises(openai.InternalServerError) as failed:
            _ask_openai(b.openai())
        assert failed.value.status_code == status
        with pytest.raises(anthropic.APIStatusError) as claude:
            _ask_anthropic(b.anthropic())
        assert claude.value.body["error"]["type"] == ("overloaded_error" if status == 529 else "api_error")


@pytest.mark.parametrize(("after_effect", "asked"), [(False, 0), (True, 1)])
def test_a_lost_connection_is_one_for_the_client(bench, after_effect: bool, asked: int) -> None:
    with bench("disconnect", after_effect=after_effect) as b:
        with pytest.raises(openai.APIConnectionError):
            _ask_openai(b.openai())
        assert len(b.endpoint.bodies) == asked
        assert b.injector.silent() == ()


def test_latency_and_hang(bench) -> None:
    with bench("latency", latency_ms=300) as b:
        began = time.monotonic()
        _ask_openai(b.openai())
        assert time.monotonic() - began >= 0.3
    with bench("hang") as b:
        with pytest.raises(openai.APITimeoutError):
            _ask_openai(b.openai(timeout=0.3))
        assert not b.endpoint.bodies and b.injector.silent() == ()
    assert read_events(b.folder / "events.jsonl")[-1].outcome == "client_left"


def test_malformed_tool_calls_in_both_formats_streaming_and_not(bench) -> None:
    broken = '{"to": "bob", "amount": '
    with bench("llm_malformed_tool_call") as b:
        assert _ask_openai(b.openai()).choices[0].message.tool_calls[0].function.arguments == broken
        assert _streamed_openai(b.openai()) == ("I will send it.", broken, "tool_calls")
        assert _ask_anthropic(b.anthropic()).content[1].input == broken
        assert _streamed_anthropic(b.anthropic()).content[1].input == {"to": "bob"}  # this client keeps what it can read
        assert [item.arguments for item in _streamed_response(b.openai()).output[1:]] == [broken]
    fired = [event for event in read_events(b.folder / "events.jsonl") if event.kind == "fault_fired"]
    assert [event.tool for event in fired] == ["transfer"] * 5
    with pytest.raises(ValueError):
        json.loads(broken)


def test_only_the_named_tool_and_the_chosen_call_are_malformed_and_all_else_keeps_its_bytes(bench) -> None:
    with bench("llm_malformed_tool_call", When(nth=2), Match(tool="transfer")) as b:
        assert _streamed_openai(b.openai())[1] == CALL["function"]["arguments"]
        assert _streamed_openai(b.openai())[1] == '{"to": "bob", "amount": '
    with bench("llm_malformed_tool_call", match=Match(tool="balance")) as b, httpx.Client(trust_env=False) as client:
        for (path, stream), answer in ANSWERS.items():
            assert client.post(b.url + path, json={"stream": stream}).content == answer
        assert b.injector.silent() == ("f",)


def test_a_rate_limit_is_one_under_either_name(bench) -> None:
    with bench("rate_limit", When(first=2)) as b:
        assert _ask_anthropic(b.anthropic()).content
        with pytest.raises(anthropic.RateLimitError) as refused:
            _ask_anthropic(b.anthropic())
    assert refused.value.response.headers["retry-after"] == "1"


def test_cut_answers_end_at_the_length_limit_in_every_format(tmp_path) -> None:
    kinds = Fault(id="f", channel="model", kind="result_truncated", params={"keep_share": 0.2})
    with _bench(tmp_path, kinds) as b:
        chat = _ask_openai(b.openai()).choices[0]
        assert (chat.finish_reason, chat.message.content, chat.message.tool_calls) == ("length", "I will s", None)
        assert _streamed_openai(b.openai()) == ("I will s", "", "length")
        for message in (_ask_anthropic(b.anthropic()), _streamed_anthropic(b.anthropic())):
            assert message.stop_reason == "max_tokens"
            assert [block.type for block in message.content] == ["text"] and "I will" in message.content[0].text
        with b.openai() as client:
            whole = client.responses.create(model="m", input=SAID)
            assert client.completions.create(model="m", prompt="p").choices[0].text == "onc"
        for response in (whole, _streamed_response(b.openai())):
            assert (response.status, response.output_text, len(response.output)) == ("incomplete", "I will", 1)
    assert b.injector.silent() == ()


def test_a_client_that_leaves_ends_the_call_upstream(tmp_path) -> None:
    with _bench(tmp_path) as b:
        with httpx.Client(trust_env=False) as client, client.stream("POST", f"{b.url}/slow", content=b"{}") as answer:
            pieces = answer.iter_raw()  # kept: a dropped iterator closes the connection
            assert next(pieces)
            assert not b.endpoint.left.is_set()
        assert b.endpoint.left.wait(2)
    assert read_events(tmp_path / "events.jsonl")[-1].outcome == "client_left"


def test_floods_silence_and_absence_end_in_time(tmp_path) -> None:
    threads = set(threading.enumerate())
    limits = ProxyLimits(request_bytes=1000, answer_bytes=50_000, idle_s=0.3, connect_s=0.3, total_s=5.0)
    with _bench(tmp_path, base="/silent", limits=limits) as b:
        with pytest.raises(anthropic.InternalServerError) as late:
            _ask_anthropic(b.anthropic())
        assert late.value.status_code == 504
        with httpx.Client(trust_env=False) as client:
            assert client.post(f"{b.url}/v1/messages", content=b"x" * 1001).status_code == 413
    with _bench(tmp_path, base="/flood", limits=limits) as b, pytest.raises(anthropic.APIConnectionError):
        _ask_anthropic(b.anthropic())
    assert b.endpoint.left.wait(2)
    proxy = ModelProxy("http://127.0.0.1:9", b.injector, observe_into(tmp_path / "o.jsonl"))
    with hosted(proxy.app()) as url, httpx.Client(trust_env=False) as client:
        answer = client.post(f"{url}/v1/messages", json={"model": "m"})
        assert answer.status_code == 502 and "ConnectError" in answer.json()["error"]["message"]
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"[" * 100_000, b'{"a": NaN}', b'{"m": "\\ud800", "n": 1e999}', b"\xff\x00"])
def test_bodies_that_are_no_request_are_passed_on_and_said_to_be_unread(tmp_path, body: bytes) -> None:
    injector = Injector(FaultPlan(), EventLog())
    proxy = ModelProxy("http://127.0.0.1:9", injector, observe_into(tmp_path / "o.jsonl"))
    with hosted(proxy.app()) as url, httpx.Client(trust_env=False) as client:
        assert client.post(f"{url}/v1/messages", content=body).status_code == 502
    (asked,) = injector.log.events("model_request")
    assert asked.outcome == ("read" if b"ud800" in body else "unreadable")


def test_the_proxy_asks_for_its_own_token(tmp_path) -> None:
    with _bench(tmp_path, token="t0ken") as b:
        for headers in ({}, {"Proxy-Authorization": "Bearer other"}, {"Authorization": "Bearer t0ken"}):
            with pytest.raises(openai.APIStatusError) as refused:
                _ask_openai(b.openai(default_headers=headers))
            assert refused.value.status_code in (401, 407)
        assert not b.endpoint.bodies
        assert _ask_openai(b.openai(default_headers={"Proxy-Authorization": "Bearer t0ken"})).choices
        assert "proxy-authorization" not in b.endpoint.headers[-1]
        assert b.endpoint.headers[-1]["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("address", ["ftp://x", "api.openai.com", "https://", "https://u:p@x", "https://x/?key=1"])
def test_an_address_that_is_none_is_refused(address: str, tmp_path) -> None:
    with pytest.raises(UsageError, match="address") as refused:
        ModelProxy(address, Injector(FaultPlan(), EventLog()), observe_into(tmp_path / "o"))
    assert "u:p" not in str(refused.value)


def test_a_fault_that_cannot_act_on_a_model_is_refused(tmp_path) -> None:
    plan = FaultPlan(faults=(Fault(id="f", channel="audit", kind="audit_sink_down"),))
    with pytest.raises(PlanError, match="model"):
        ModelProxy("http://x", Injector(plan, EventLog()), observe_into(tmp_path / "o"))


def test_the_command_serves_until_it_is_interrupted_and_names_the_faults_that_never_acted(tmp_path) -> None:
    plan = {"faults": [{"id": n, "channel": "model", "kind": "llm_5xx", "when": {"nth": n}} for n in (1, 9)]}
    plan["faults"] = [fault | {"id": f"f{fault['id']}"} for fault in plan["faults"]]
    (tmp_path / "faults.yaml").write_text(json.dumps(plan))
    code = "from auditgap.cli.release_proxy_model import proxy_model as main; main()"
    options = ["--upstream", "http://127.0.0.1:9", "--plan", "faults.yaml", "--events", "events.jsonl"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *options], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        url = process.stdout.readline().strip()
        with httpx.Client(trust_env=False) as client:
            assert client.post(f"{url}/v1/messages", json={"model": "m"}).status_code == 503
        process.terminate()
        _, said = process.communicate(timeout=10)
    assert (process.returncode, said.strip()) == (0, "fault 'f9' never acted")
    kinds = [event.kind for event in read_events(tmp_path / "events.jsonl")]
    assert kinds == ["model_request", "fault_fired", "model_response"]


def test_a_proxy_that_others_can_reach_needs_a_token(tmp_path) -> None:
    with (
        pytest.raises(UsageError, match="AUDITGAP_PROXY_TOKEN"),
        proxying("http://x", events=tmp_path / "e", host="0.0.0.0"),
    ):
        pass

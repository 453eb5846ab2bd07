"""What the model proxy reads and rewrites: it never fails on bytes, and where chunks begin and end does not matter."""

import asyncio
import copy
import itertools
import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.records import canonical_json
from auditgap.release.injection.hosting import TooLargeError
from auditgap.release.injection.model_reading import Transcript, split
from auditgap.release.injection.model_tampering import LengthCut, MalformedCalls, text_length
from auditgap.release.injection.model_wire import answered, canonical_request, events, payload, sent, wire_of

CALL = {"id": "c", "type": "function", "function": {"name": "transfer", "arguments": '{"to": "alice"}'}}
CHAT = {"choices": [{"index": 0, "message": {"content": "I will send it.", "tool_calls": [CALL]}, "finish_reason": "tool_calls"}]}
ENDS = st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r"])
EVENT = st.tuples(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=20), ENDS).map(
    lambda pair: f"data: {pair[0]}".encode() + pair[1]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)


def _pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


async def _async(parts: list[bytes]) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def _split_all(parts: list[bytes]) -> list[bytes]:
    return [event async for event in split(_async(parts))]


@given(stream=st.lists(EVENT, max_size=6), rest=st.binary(max_size=5), cuts=st.lists(st.integers(0, 200), max_size=6))
def test_a_stream_cut_anywhere_is_split_into_the_same_bytes(stream: list[bytes], rest: bytes, cuts: list[int]) -> None:
    data = b"".join(stream) + rest
    assert b"".join(asyncio.run(_split_all(_pieces(data, cuts)))) == data
    complete, left = events(data)
    assert b"".join(complete) + left == data


def test_a_stream_without_an_end_is_not_kept() -> None:
    with pytest.raises(TooLargeError):
        asyncio.run(_split_all([b"x" * 2**20] * 5))


@given(cuts=st.lists(st.integers(0, 2000), max_size=8))
def test_where_chunks_begin_changes_nothing_that_is_written_down(cuts: list[int]) -> None:
    chunk = {"choices": [{"index": 0, "delta": {"tool_calls": [{**CALL, "index": 0}]}, "finish_reason": "tool_calls"}]}
    data = f"data: {json.dumps(chunk)}\r\n\r\ndata: [DONE]\r\n\r\n".encode()
    transcript = Transcript("openai-chat", streamed=True)
    for part in _pieces(data, cuts):
        transcript.add(part)
    assert (transcript.tools, transcript.finish, transcript.n_bytes) == (["transfer"], "tool_calls", len(data))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reading(data: bytes) -> None:
    for read in (canonical_request, answered, payload):
        assert read(data) is None or isinstance(read(data), dict)


@given(st.dictionaries(st.sampled_from(["messages", "tools", "system", "model", "input", "x"]), JSON, max_size=5))
def test_any_request_can_be_written_down(request_: dict) -> None:
    body = json.dumps(request_).encode()
    document = canonical_request(body)
    if document is not None:
        for wire in ("openai-chat", "anthropic-messages", "openai-responses", "openai-completions"):
            canonical_json(sent(wire, "/v1/x", document))  # type: ignore[arg-type]


@given(content=JSON, wire=st.sampled_from(["openai-chat", "anthropic-messages", "openai-responses", "openai-completions"]))
def test_no_answer_breaks_the_faults(content: object, wire: str) -> None:
    for name in ("choices", "content", "output", "delta", "item", "response", "type"):
        for map_ in (MalformedCalls(wire, lambda tool: "{"), LengthCut(wire, 3)):  # type: ignore[arg-type]
            map_({name: content})  # type: ignore[dict-item]


@given(budget=st.integers(0, 40))
def test_a_cut_answer_holds_at_most_its_budget_and_says_length(budget: int) -> None:
    document = copy.deepcopy(CHAT)
    LengthCut("openai-chat", budget)(document)
    whole = len("I will send it.") + len('{"to": "alice"}')
    assert text_length("openai-chat", [copy.deepcopy(document)]) == min(budget, whole)
    assert document["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("method", "path", "wire"),
    [
        ("POST", "/v1/chat/completions", "openai-chat"),
        ("POST", "/v1/chat/completions/", "openai-chat"),
        ("POST", "/openai/deployments/x/chat/completions", "openai-chat"),
        ("POST", "/v1/completions", "openai-completions"),
        ("POST", "/v1/messages", "anthropic-messages"),
        ("POST", "/v1/threads/t1/messages", None),
        ("POST", "/v1/messages/count_tokens", None),
        ("GET", "/v1/responses", None),
        ("POST", "/v1/embeddings", None),
    ],
)
def test_the_format_is_known_by_its_path(method: str, path: str, wire: str | None) -> None:
    assert wire_of(method, path) == wire

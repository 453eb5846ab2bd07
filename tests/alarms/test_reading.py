"""Traffic in our own form and in OpenTelemetry's says the same; what is neither is refused with its line."""

import io
import json

import pytest

from auditgap.alarms import Audit, Traffic, read_lines, read_row, values_of
from auditgap.errors import DataError, UsageError

FINGERPRINT = "sha256:" + "ab" * 32


def records(*rows, **limits):
    text = b"".join(row if isinstance(row, bytes) else json.dumps(row).encode() + b"\n" for row in rows)
    return [record for line in read_lines(io.BytesIO(text), "t.jsonl", **limits) for record in line.records]


def attributes(**values):
    def value(v):
        match v:
            case bool():
                return {"boolValue": v}
            case int():
                return {"intValue": str(v)}
            case float():
                return {"doubleValue": v}
            case str():
                return {"stringValue": v}
            case list():
                return {"arrayValue": {"values": [value(each) for each in v]}}
            case dict():
                return {"kvlistValue": {"values": [{"key": k, "value": value(each)} for k, each in v.items()]}}

    return [{"key": key.replace("__", "."), "value": value(v)} for key, v in values.items()]


def spans(*items, **resource):
    batch = {"spans": [{"name": "x", "attributes": item} for item in items]}
    return {"resourceSpans": [{"resource": {"attributes": attributes(**resource)}, "scopeSpans": [batch]}]}


def said(role, *texts):
    return {"role": role, "parts": [{"type": "text", "content": text} for text in texts]}


def test_our_own_form():
    row = {
        "id": 7,
        "request": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello"}],
        "reply": "Sorry, no.",
        "stop": "stop",
        "kind": "mail",
        "tools": ["search", "send"],
        "adherence": "blocked",
        "reported": False,
        "flags": {"leak": True},
        "scores": {"probe": 0.25},
        "audit": {"probability": 0.1, "label": True},
        "release": FINGERPRINT,
    }
    (found,) = records(row)
    assert found == Traffic(
        "t.jsonl: line 1", "Hello", "Sorry, no.", ("stop",), "mail", ("search", "send"), "blocked", False,
        {"leak": True}, {"probe": 0.25}, Audit(0.1, 1.0), FINGERPRINT,
    )  # fmt: skip
    values = {name: list(values_of(found, name, audit_floor=0.05)) for name in ("refused", "tool", "flag.leak", "score.probe")}
    assert values == {"refused": [1.0], "tool": ["search", "send"], "flag.leak": [1.0], "score.probe": [0.25]}
    assert values_of(found, "audited", audit_floor=0.05) == (0.5,)
    assert values_of(found, "risky", patterns=["^sorry"]) == (1.0,)
    assert values_of(found, "reply_chars") == (10.0,)
    with pytest.raises(UsageError, match="floor"):
        values_of(found, "audited", audit_floor=0.2)


def test_what_a_record_does_not_say_has_no_value():
    (found,) = records({"id": 1})
    signals = (
        "refused",
        "risky",
        "reported",
        "audited",
        "kind",
        "tool",
        "adherence",
        "reply_chars",
        "tool_calls",
        "flag.x",
        "score.x",
    )
    assert all(not values_of(found, signal, patterns=["x"], audit_floor=0.1) for signal in signals)
    assert values_of(Traffic(stops=("refusal",)), "refused") == (1.0,)  # without content, the reason why it stopped still says it
    assert values_of(Traffic(tools=()), "tool_calls") == (0.0,)


def test_opentelemetry_spans_and_log_records():
    chat = attributes(
        gen_ai__operation__name="chat",
        gen_ai__input__messages=json.dumps([said("system", "Be kind."), said("user", "Hello")]),
        gen_ai__output__messages=json.dumps([said("assistant", "I cannot ", "help with that.")]),
        gen_ai__response__finish_reasons=["stop"],
    )
    tool = attributes(gen_ai__operation__name="execute_tool", gen_ai__tool__name="search", auditgap__adherence__state="executed")
    other = attributes(gen_ai__operation__name="embeddings")
    found = records(spans(chat, tool, other, auditgap__release__fingerprint=FINGERPRINT))
    where = "t.jsonl: line 1"
    assert found == [
        Traffic(where, "Hello", "I cannot help with that.", ("stop",), release=FINGERPRINT),
        Traffic(where, tools=("search",), adherence="executed", release=FINGERPRINT),
    ]
    score = attributes(gen_ai__evaluation__name="probe", gen_ai__evaluation__score__value=0.75)
    details = attributes(gen_ai__output__messages=[said("assistant", "Sure.")])
    logs = [
        {"eventName": "gen_ai.evaluation.result", "attributes": score},
        {"eventName": "gen_ai.client.inference.operation.details", "attributes": details},
        {"eventName": "device.crash", "attributes": []},
    ]
    found = records({"resourceLogs": [{"resource": {}, "scopeLogs": [{"logRecords": logs}]}]}, {"resourceMetrics": []})
    assert [(f.scores, f.reply) for f in found] == [({"probe": 0.75}, None), ({}, "Sure.")]


def test_what_the_sdk_exports_is_read():
    """Peer: the protocol's own encoder, turned into JSON as its file exporter does."""
    common = pytest.importorskip("opentelemetry.exporter.otlp.proto.common.trace_encoder")
    from google.protobuf.json_format import MessageToDict
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource({"auditgap.release.fingerprint": FINGERPRINT}))
    provider.add_span_processor(SimpleSpanProcessor(kept))
    with provider.get_tracer("t").start_as_current_span("execute_tool search") as span:
        span.set_attributes({"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "search", "n": 3, "x": 0.5})
    batch = MessageToDict(common.encode_spans(kept.get_finished_spans()))
    provider.shutdown()
    assert records(batch) == [Traffic("t.jsonl: line 1", tools=("search",), release=FINGERPRINT)]


def test_key_order_blank_lines_and_a_byte_order_mark_do_not_matter():
    one = records({"kind": "a", "reply": "x"})
    assert one == records(b'\xef\xbb\xbf{"reply": "x", "kind": "a"}')
    (second,) = records(b"\n  \r\n", {"kind": "a", "reply": "x"})
    assert second == one[0]._replace(where="t.jsonl: line 3")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"{", "line 2: expected one JSON object, got .*; the line has no end"),
        (b"{\n", "line 2: expected one JSON object"),
        (b"[1]\n", r"line 2: expected one JSON object, got \[1\]"),
        (b"\xff\n", "line 2: expected UTF-8, got byte 0xff at position 0"),
        (b'{"reply": NaN}\n', "line 2: .*NaN"),
        (b'{"reply": "a", "reply": "b"}\n', "line 2: .*the key 'reply' twice"),
        (b"[" * 100_000 + b"\n", "line 2: .*nested too deeply"),
        (b'{"reply": "' + b"x" * 300 + b'"}\n', "line 2: expected at most 200 bytes"),
        ({"replly": "x"}, "line 2: unknown key 'replly' - did you mean 'reply'"),
        ({"reply": 3}, "line 2: reply: expected text, got 3"),
        ({"request": [{"role": "user"}]}, "line 2: request: expected text, or messages"),
        ({"reported": "yes"}, "line 2: reported: expected true or false"),
        ({"tools": "search"}, "line 2: tools: expected a list of names"),
        ({"flags": {"a": 1}}, "line 2: flags.a: expected true or false"),
        ({"scores": {"a": True}}, "line 2: scores.a: expected a number"),
        ({"scores": [1]}, "line 2: scores: expected a mapping"),
        ({"adherence": "fine"}, "line 2: adherence: expected one of refused"),
        ({"audit": {"label": 1}}, "line 2: audit: expected a mapping with probability"),
        ({"audit": {"probability": 0}}, r"line 2: audit: expected a probability in \(0, 1\]"),
        ({"release": "v1"}, "line 2: release: expected sha256:"),
        ({"repl\x1b[2Jy": "x"}, r"line 2: unknown key 'repl\\x1b\[2Jy'"),
        ({"scores": {"a": 10**400}}, "line 2: scores.a: expected a number"),
        (b'{"scores": {"a": 1e999}}\n', "line 2: scores.a: expected a number"),
        ({"resourceSpans": {}}, "line 2: expected OpenTelemetry JSON with resourceSpans, a list of objects"),
        (spans([{"key": "a", "value": {"intValue": "x"}}]), "line 2: expected OpenTelemetry JSON with intValue"),
        (spans([{"key": "a", "value": 3}]), "line 2: expected OpenTelemetry JSON with an attribute value"),
        (spans(attributes(gen_ai__operation__name="chat", gen_ai__output__messages="{")), "line 2: .*output.messages, JSON"),
        (spans(attributes(gen_ai__operation__name="chat", gen_ai__output__messages="[]")), "line 2: .*a list of messages"),
        (spans(attributes(gen_ai__operation__name="chat"), auditgap__release__fingerprint="v1"), "line 2: .*fingerprint"),
    ],
)
def test_bad_input_is_refused_with_its_line(row, message):
    limit = {"max_line_bytes": 200} if isinstance(row, bytes) and len(row) < 1000 else {}
    with pytest.raises(DataError, match=message):
        records({"id": 1}, row, **limit)


def test_a_row_is_read_without_a_file():
    assert read_row({"kind": "a"}, "row").kind == "a"

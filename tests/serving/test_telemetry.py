"""Everything that leaves carries the release and nothing that anyone wrote; what leaves can be read back by the alarms."""

import datetime as dt
import io
import json

import pytest
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from auditgap.alarms import Alarm, read_lines, values_of
from auditgap.errors import UsageError
from auditgap.records import NotMeasured, canonical_json, digest_of
from auditgap.serving.telemetry import FINGERPRINT, Telemetry

RELEASE = "sha256:" + "ab" * 32
SECRET = "the launch code is 0000"


class Kept:
    """A telemetry whose output stays here."""

    def __init__(self, **options):
        self._spans, self._logs = InMemorySpanExporter(), InMemoryLogRecordExporter()
        self.telemetry = Telemetry(
            RELEASE, spans=[SimpleSpanProcessor(self._spans)], logs=[SimpleLogRecordProcessor(self._logs)], **options
        )

    def spans(self):
        return self._spans.get_finished_spans()

    def logs(self):
        return self._logs.get_finished_logs()


@pytest.fixture
def kept():
    found = Kept()
    yield found
    found.telemetry.shutdown()


def serve(telemetry):
    with telemetry.exchange("chat", model="tiny", conversation="c1") as exchange:
        exchange.content(request=[("user", SECRET)], reply=f"Sure: {SECRET}")
        with exchange.tool("send", call="t1", arguments={"text": SECRET}, adherence="blocked"):
            pass
        exchange.evaluated("probe", 0.75, label="harmful", response="r1")
        exchange.finished(response="r1", stops=["stop"], n_input_tokens=5, n_output_tokens=8, n_scored_tokens=6)
    telemetry.control("validator", "denied")


def everything(kept):
    spans = [span.to_json() for span in kept.spans()]
    return "\n".join([*spans, *(log.to_json() for log in kept.logs()), kept.telemetry.exposition().decode()])


def test_spans_log_records_and_metrics_of_an_exchange(kept):
    serve(kept.telemetry)
    tool, chat = kept.spans()
    assert tool.parent.span_id == chat.context.span_id and chat.parent is None
    assert dict(chat.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "auditgap",
        "gen_ai.request.model": "tiny",
        "gen_ai.conversation.id": "c1",
        "gen_ai.response.id": "r1",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 8,
        "auditgap.monitor.coverage": 0.75,
        FINGERPRINT: RELEASE,
    }
    assert tool.attributes["auditgap.tool.call.arguments.digest"] == digest_of(canonical_json({"text": SECRET}))
    (log,) = kept.logs()
    assert log.log_record.event_name == "gen_ai.evaluation.result"
    assert (log.log_record.trace_id, log.log_record.span_id) == (chat.context.trace_id, chat.context.span_id)
    assert log.log_record.attributes["gen_ai.evaluation.score.value"] == 0.75
    metrics = kept.telemetry.exposition().decode().splitlines()
    for line in (
        'auditgap_requests_total{operation="chat",outcome="ok"} 1.0',
        'auditgap_steps_total{adherence="blocked"} 1.0',
        'auditgap_verdicts_total{control="validator",verdict="denied"} 1.0',
        'auditgap_tokens_total{scored="yes"} 6.0',
        'auditgap_tokens_total{scored="no"} 2.0',
        'auditgap_monitor_score_bucket{le="0.75",monitor="probe"} 1.0',
        'auditgap_monitor_score_bucket{le="0.5",monitor="probe"} 0.0',
        f'auditgap_release_info{{fingerprint="{RELEASE}"}} 1.0',
    ):
        assert line in metrics


def test_the_fingerprint_is_on_every_span_and_resource_whoever_starts_it(kept):
    serve(kept.telemetry)
    with kept.telemetry.tracer_provider.get_tracer("another library").start_as_current_span("GET /"):
        pass
    kept.telemetry.emit("x", {})
    assert len(kept.spans()) == 3
    assert all(span.attributes[FINGERPRINT] == span.resource.attributes[FINGERPRINT] == RELEASE for span in kept.spans())
    assert all(log.resource.attributes[FINGERPRINT] == RELEASE for log in kept.logs())
    assert all(log.log_record.attributes[FINGERPRINT] == RELEASE for log in kept.logs())


def test_content_stays_unless_it_is_asked_for(kept):
    serve(kept.telemetry)
    assert "launch code" not in everything(kept)
    loud = Kept(capture_content=True)
    serve(loud.telemetry)
    assert "launch code" in everything(loud)
    assert "launch code" not in loud.spans()[0].to_json()  # arguments of tools stay digests
    loud.telemetry.shutdown()


def test_an_error_leaves_its_type_and_not_its_message(kept):
    with pytest.raises(ValueError), kept.telemetry.exchange("chat", model="tiny"):
        raise ValueError(SECRET)
    (span,) = kept.spans()
    assert span.attributes["error.type"] == "ValueError" and not span.status.is_ok and not span.events
    assert "launch code" not in everything(kept)
    assert 'auditgap_requests_total{operation="chat",outcome="ValueError"} 1.0' in kept.telemetry.exposition().decode()


def test_an_alarm_is_counted_and_told(kept):
    kept.telemetry.alarm(
        Alarm(
            policy=RELEASE, spec=RELEASE, stream="refusals", signal="refused", hypothesis="h", at_event=9, at_record=9, where="",
            statistic="e-value", value=120.0, threshold=100.0, guarantee="g", estimate=NotMeasured(name="n", reason="r"),
            response="Stop.", owner="o", deadline_hours=1.0, release=None, raised_at=dt.datetime(2026, 11, 21, tzinfo=dt.UTC),
        )
    )  # fmt: skip
    (log,) = kept.logs()
    assert log.log_record.event_name == "auditgap.alarm" and log.log_record.attributes["auditgap.alarm.value"] == 120.0
    assert 'auditgap_alarms_total{stream="refusals"} 1.0' in kept.telemetry.exposition().decode()


def test_what_is_sent_is_what_a_watch_reads():
    """The whole way round: span -> protocol JSON -> traffic -> signals."""
    encoder = pytest.importorskip("opentelemetry.exporter.otlp.proto.common.trace_encoder")
    from google.protobuf.json_format import MessageToDict

    sent = Kept(capture_content=True)
    with sent.telemetry.exchange("chat", model="tiny") as exchange:
        exchange.content(request=[("user", "Hello")], reply="I cannot help with that.")
        exchange.finished(response="r1", stops=["stop"], n_input_tokens=1, n_output_tokens=1)
        with exchange.tool("send", call="t1", arguments={}, adherence="executed"):
            pass
    line = json.dumps(MessageToDict(encoder.encode_spans(sent.spans()))).encode()
    tool, chat = (record for line in read_lines(io.BytesIO(line), "x") for record in line.records)
    assert values_of(chat, "refused") == (1.0,) and chat.request == "Hello" and chat.release == RELEASE
    assert values_of(tool, "tool") == ("send",) and values_of(tool, "adherence") == ("executed",)
    sent.telemetry.shutdown()


def test_two_servers_in_one_process_do_not_share_counts(kept):
    other = Kept()
    serve(kept.telemetry)
    assert "auditgap_requests_total{" not in other.telemetry.exposition().decode()
    other.telemetry.shutdown()


def test_bad_input_is_refused(kept):
    with kept.telemetry.exchange("chat", model="tiny") as exchange:
        with pytest.raises(UsageError, match=r"probe: expected a score in \[0, 1\], got 1.5"):
            exchange.evaluated("probe", 1.5)
        with pytest.raises(UsageError, match="no adherence state 'block' - did you mean 'blocked'"):
            exchange.tool("x", call="t", arguments={}, adherence="block").__enter__()
        with pytest.raises(UsageError, match="n_scored_tokens: expected 0 to 2"):
            exchange.finished(response="r", stops=[], n_input_tokens=1, n_output_tokens=2, n_scored_tokens=3)

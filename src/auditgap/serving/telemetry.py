"""What a served model tells about itself: OpenTelemetry's attributes of generative AI, and Prometheus metrics.

1. Every span, log record and resource carries `auditgap.release.fingerprint`, so that whatever is seen can be joined to the
   release it came from; spans of other libraries that use the same provider too.
2. Each score of a monitor is a log record `gen_ai.evaluation.result` under the span that it judges.
3. Content is off: messages go out only if `capture_content` is set. Arguments of tools go out as digests, the same as in the
   event stream. A digest hides a long text; whoever can guess the arguments can check the guess.
4. An error leaves its type, never its message or its trace: both may quote content.

Source: github.com/open-telemetry/semantic-conventions-genai, all of status development; names with `auditgap.` are ours.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from opentelemetry._logs import Logger, LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider
from opentelemetry.trace import Span as AnySpan
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, set_span_in_context
from prometheus_client import CollectorRegistry, Counter, Histogram, Info, generate_latest
from pydantic import JsonValue

from auditgap.errors import UsageError, nearest
from auditgap.records import Digest, canonical_json, digest_of
from auditgap.records.alarm import Alarm
from auditgap.records.integrity import ADHERENCE

__all__ = ["FINGERPRINT", "Exchange", "Operation", "Telemetry"]

FINGERPRINT = "auditgap.release.fingerprint"
SCORE_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)

Operation = Literal["chat", "text_completion"]


class Telemetry:
    """The spans, log records and metrics of one release. Without processors nothing leaves the process but the metrics.

    Args:
        release: fingerprint of the release.
        spans: where spans go, e.g. a `BatchSpanProcessor` with an exporter.
        logs: where log records go.
        capture_content: send messages too.
        service: name of the service in its resource.
    """

    def __init__(
        self,
        release: Digest,
        *,
        spans: Sequence[SpanProcessor] = (),
        logs: Sequence[LogRecordProcessor] = (),
        capture_content: bool = False,
        service: str = "auditgap",
    ) -> None:
        resource = Resource.create({"service.name": service, FINGERPRINT: release})
        self.tracer_provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self.logger_provider = LoggerProvider(resource=resource, shutdown_on_exit=False)
        for processor in (_Fingerprint(release), *spans):
            self.tracer_provider.add_span_processor(processor)
        for processor in logs:
            self.logger_provider.add_log_record_processor(processor)
        self.capture_content = capture_content
        self.metrics = _Metrics(release)
        self._release = release
        self._tracer: Tracer = self.tracer_provider.get_tracer("auditgap")
        self._logger: Logger = self.logger_provider.get_logger("auditgap")

    @contextmanager
    def exchange(self, operation: Operation, *, model: str, conversation: str | None = None) -> Iterator["Exchange"]:
        """One request and its answer: a span from here to the end of the block, which must say how it `finished`."""
        attributes: dict[str, str] = {"gen_ai.provider.name": "auditgap", "gen_ai.request.model": model}
        if conversation is not None:
            attributes["gen_ai.conversation.id"] = conversation
        began, outcome = time.monotonic(), "ok"
        with self._span(f"{operation} {model}", operation, attributes, SpanKind.SERVER) as span:
            try:
                yield Exchange(self, span)
            except BaseException as error:
                outcome = type(error).__name__
                raise
            finally:
                self.metrics.requests.labels(operation, outcome).inc()
                self.metrics.seconds.labels(operation).observe(time.monotonic() - began)

    def alarm(self, alarm: Alarm) -> None:
        """Count an alarm and tell of it as a log record."""
        self.metrics.alarms.labels(alarm.stream).inc()
        told = {
            "auditgap.alarm.stream": alarm.stream,
            "auditgap.alarm.policy": alarm.policy,
            "auditgap.alarm.value": alarm.value,
            "auditgap.alarm.threshold": alarm.threshold,
            "auditgap.alarm.guarantee": alarm.guarantee,
        }
        self.emit("auditgap.alarm", told, severity=SeverityNumber.WARN)

    def control(self, control: str, verdict: str) -> None:
        """Count what a control said: `allowed`, `denied`, `down`, ..."""
        self.metrics.verdicts.labels(control, verdict).inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.metrics.registry)

    def shutdown(self) -> None:
        """Send what is waiting, and stop."""
        self.tracer_provider.shutdown()
        self.logger_provider.shutdown()

    def emit(
        self,
        event: str,
        attributes: Mapping[str, str | float],
        *,
        span: AnySpan | None = None,
        severity: SeverityNumber = SeverityNumber.INFO,
    ) -> None:
        """Send a log record, under a span if one is given."""
        context = set_span_in_context(span, Context()) if span is not None else None
        record = LogRecord(
            timestamp=time.time_ns(),
            context=context,
            severity_number=severity,
            attributes={**attributes, FINGERPRINT: self._release},
            event_name=event,
        )
        self._logger.emit(record)

    @contextmanager
    def _span(
        self, name: str, operation: str, attributes: Mapping[str, str], kind: SpanKind, parent: AnySpan | None = None
    ) -> Iterator[AnySpan]:
        context = set_span_in_context(parent) if parent is not None else None
        span = self._tracer.start_span(
            name, context, kind, {"gen_ai.operation.name": operation, **attributes}, record_exception=False
        )
        try:
            yield span
        except BaseException as error:
            span.set_attribute("error.type", type(error).__name__)
            span.set_status(Status(StatusCode.ERROR))
            raise
        finally:
            span.end()


class Exchange:
    """The span of one exchange, and what happens in it."""

    def __init__(self, telemetry: Telemetry, span: AnySpan) -> None:
        self._telemetry, self._span = telemetry, span

    def finished(
        self,
        *,
        response: str,
        stops: Sequence[str],
        n_input_tokens: int,
        n_output_tokens: int,
        n_scored_tokens: int | None = None,
    ) -> None:
        """How the answer ended, and how many of its tokens a monitor scored; None if none was attached."""
        self._span.set_attributes(
            {
                "gen_ai.response.id": response,
                "gen_ai.response.finish_reasons": list(stops),
                "gen_ai.usage.input_tokens": n_input_tokens,
                "gen_ai.usage.output_tokens": n_output_tokens,
            }
        )
        if n_scored_tokens is None:
            return
        if not 0 <= n_scored_tokens <= n_output_tokens:
            raise UsageError(f"n_scored_tokens: expected 0 to {n_output_tokens}, the tokens there are, got {n_scored_tokens}")
        self._span.set_attribute("auditgap.monitor.coverage", n_scored_tokens / n_output_tokens if n_output_tokens else 1.0)
        self._telemetry.metrics.tokens.labels("yes").inc(n_scored_tokens)
        self._telemetry.metrics.tokens.labels("no").inc(n_output_tokens - n_scored_tokens)

    def content(self, *, request: Sequence[tuple[str, str]], reply: str) -> None:
        """The messages as (role, text), and the reply: sent only if content is captured."""
        if self._telemetry.capture_content:
            self._span.set_attribute("gen_ai.input.messages", _messages(request))
            self._span.set_attribute("gen_ai.output.messages", _messages([("assistant", reply)]))

    def evaluated(self, name: str, score: float, *, label: str | None = None, response: str | None = None) -> None:
        """A monitor's score, as a log record under this exchange.

        Raises:
            UsageError: the score is outside [0, 1].
        """
        if not 0.0 <= score <= 1.0:
            raise UsageError(f"{name}: expected a score in [0, 1], got {score}")
        attributes: dict[str, str | float] = {"gen_ai.evaluation.name": name, "gen_ai.evaluation.score.value": score}
        if label is not None:
            attributes["gen_ai.evaluation.score.label"] = label
        if response is not None:
            attributes["gen_ai.response.id"] = response
        self._telemetry.emit("gen_ai.evaluation.result", attributes, span=self._span)
        self._telemetry.metrics.scores.labels(name).observe(score)

    @contextmanager
    def tool(
        self, name: str, *, call: str, arguments: Mapping[str, JsonValue], adherence: str | None = None
    ) -> Iterator[AnySpan]:
        """One call of a tool: a span under this exchange, with the digest of the arguments.

        Raises:
            UsageError: the adherence state is unknown.
        """
        attributes = {
            "gen_ai.tool.name": name,
            "gen_ai.tool.call.id": call,
            "auditgap.tool.call.arguments.digest": digest_of(canonical_json(dict(arguments))),
        }
        if adherence is not None:
            if adherence not in ADHERENCE:
                raise UsageError(f"no adherence state '{adherence}'{nearest(adherence, ADHERENCE)}")
            attributes["auditgap.adherence.state"] = adherence
            self._telemetry.metrics.steps.labels(adherence).inc()
        with self._telemetry._span(f"execute_tool {name}", "execute_tool", attributes, SpanKind.INTERNAL, self._span) as span:
            yield span


class _Fingerprint(SpanProcessor):
    """Puts the fingerprint on every span of the provider, whoever starts it."""

    def __init__(self, release: Digest) -> None:
        self._release = release

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        span.set_attribute(FINGERPRINT, self._release)


class _Metrics:
    """In a registry of its own, so that two servers in one process do not share counts; no label holds content or a user."""

    def __init__(self, release: Digest) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("auditgap_requests", "Exchanges, by how they ended.", "operation", "outcome")
        self.steps = self._counter("auditgap_steps", "Unsafe actions, by adherence state.", "adherence")
        self.verdicts = self._counter("auditgap_verdicts", "What each control said.", "control", "verdict")
        self.alarms = self._counter("auditgap_alarms", "Alarms, by stream.", "stream")
        self.tokens = self._counter("auditgap_tokens", "Tokens generated under a monitor, by whether it scored them.", "scored")
        self.scores = Histogram(
            "auditgap_monitor_score", "Scores of each monitor.", ["monitor"], buckets=SCORE_BUCKETS, registry=self.registry
        )
        self.seconds = Histogram("auditgap_request_seconds", "Time of an exchange.", ["operation"], registry=self.registry)
        Info("auditgap_release", "The release that is served.", registry=self.registry).info({"fingerprint": release})

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(name, about, labels, registry=self.registry)


def _messages(messages: Sequence[tuple[str, str]]) -> str:
    """Messages in the form of the conventions, as a span holds them: JSON text."""
    return json.dumps(
        [{"role": role, "parts": [{"type": "text", "content": text}]} for role, text in messages], ensure_ascii=False
    )

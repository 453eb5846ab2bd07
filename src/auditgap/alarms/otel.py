"""Spans and log records of generative AI in OpenTelemetry's JSON: as its file exporter writes them, one batch a line.

- a span of an inference operation (`chat`, `text_completion`, `generate_content`) is one exchange: its messages, where they were
  captured, and why the model stopped;
- a span `execute_tool` is one call of a tool;
- a log record `gen_ai.client.inference.operation.details` is one exchange, for systems that keep content out of spans;
- a log record `gen_ai.evaluation.result` is one score.

Everything else is passed over. `auditgap.release.fingerprint` is read from the record, else from its resource. Content is off by
default in these conventions; where it is missing, the signals that need it have no value.

Source: github.com/open-telemetry/semantic-conventions-genai (all of status development); opentelemetry.io/docs/specs/otlp, JSON.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NoReturn

from auditgap.alarms.signals import Traffic
from auditgap.errors import DataError
from auditgap.records.integrity import ADHERENCE

__all__ = ["is_fingerprint", "is_otel", "read_otel"]

Attributes = dict[str, object]
INFERENCE = ("chat", "text_completion", "generate_content")
DETAILS, EVALUATION = "gen_ai.client.inference.operation.details", "gen_ai.evaluation.result"
FINGERPRINT = "auditgap.release.fingerprint"
_BATCHES = (("resourceSpans", "scopeSpans", "spans"), ("resourceLogs", "scopeLogs", "logRecords"))


def is_fingerprint(text: str) -> bool:
    """True for `sha256:` and 64 lower-case hexadecimal digits."""
    return re.fullmatch(r"sha256:[0-9a-f]{64}", text) is not None


def is_otel(row: Mapping[str, object]) -> bool:
    """True if this line is a batch of OpenTelemetry."""
    return any(key in row for key in ("resourceSpans", "resourceLogs", "resourceMetrics"))


def read_otel(batch: Mapping[str, object], where: str) -> tuple[Traffic, ...]:
    """The records of one batch, in order.

    Raises:
        DataError: a part has not the type that the protocol gives it.
    """
    try:
        return tuple(_batch(batch, where))
    except RecursionError:
        raise DataError(f"{where}: expected OpenTelemetry JSON, got values nested too deeply to read") from None


def _batch(batch: Mapping[str, object], where: str) -> Iterator[Traffic]:
    for resources, scopes, items in _BATCHES:
        for resource in _objects(batch, resources, where):
            described = resource.get("resource") or {}
            shared = _attributes(described, where) if isinstance(described, dict) else _refuse(where, "resource", described)
            for scope in _objects(resource, scopes, where):
                for item in _objects(scope, items, where):
                    attributes = shared | _attributes(item, where)
                    found = _span(attributes, where) if items == "spans" else _log(item, attributes, where)
                    if found is not None:
                        yield found


def _span(attributes: Attributes, where: str) -> Traffic | None:
    operation = attributes.get("gen_ai.operation.name")
    if operation in INFERENCE:
        return _exchange(attributes, where)
    if operation != "execute_tool":
        return None
    tool, adherence = _text(attributes, "gen_ai.tool.name", where), _text(attributes, "auditgap.adherence.state", where)
    if adherence is not None and adherence not in ADHERENCE:
        _refuse(where, f"auditgap.adherence.state, one of {', '.join(ADHERENCE)}", adherence)
    return Traffic(where, tools=None if tool is None else (tool,), adherence=adherence, release=_release(attributes, where))


def _log(record: Mapping[str, object], attributes: Attributes, where: str) -> Traffic | None:
    event = record.get("eventName") or attributes.get("event.name")
    if event == DETAILS:
        return _exchange(attributes, where)
    if event != EVALUATION:
        return None
    name, score = _text(attributes, "gen_ai.evaluation.name", where), attributes.get("gen_ai.evaluation.score.value")
    if name is None or score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float) or not abs(score) < 1e300:
        _refuse(where, "gen_ai.evaluation.score.value, a finite number", score)
    return Traffic(where, scores={name: float(score)}, release=_release(attributes, where))


def _exchange(attributes: Attributes, where: str) -> Traffic:
    stops = attributes.get("gen_ai.response.finish_reasons") or []
    reported = attributes.get("auditgap.reported")
    return Traffic(
        where,
        request=_last_text(attributes, "gen_ai.input.messages", where),
        reply=_last_text(attributes, "gen_ai.output.messages", where),
        stops=tuple(str(stop) for stop in stops) if isinstance(stops, list) else (str(stops),),
        kind=_text(attributes, "auditgap.request.kind", where),
        reported=reported if isinstance(reported, bool) else None,
        release=_release(attributes, where),
    )


def _last_text(attributes: Attributes, key: str, where: str) -> str | None:
    """The text of the last message; a span holds messages as a JSON string, a log record as they are."""
    messages = attributes.get(key)
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except (ValueError, RecursionError):
            _refuse(where, f"{key}, JSON", messages)
    if messages is None:
        return None
    last = messages[-1] if isinstance(messages, list) and messages else _refuse(where, f"{key}, a list of messages", messages)
    parts = last.get("parts") if isinstance(last, dict) else None
    if not isinstance(parts, list):
        _refuse(where, f"{key}, messages with parts", last)
    texts = [part["content"] for part in parts if isinstance(part, dict) and part.get("type") == "text" and "content" in part]
    return "".join(str(text) for text in texts) if texts else None


def _release(attributes: Attributes, where: str) -> str | None:
    value = _text(attributes, FINGERPRINT, where)
    return value if value is None or is_fingerprint(value) else _refuse(where, f"{FINGERPRINT}, sha256: and 64 digits", value)


def _text(attributes: Attributes, key: str, where: str) -> str | None:
    value = attributes.get(key)
    return value if value is None or isinstance(value, str) else _refuse(where, f"{key}, text", value)


def _attributes(item: Mapping[str, object], where: str) -> Attributes:
    return {str(pair.get("key")): _value(pair.get("value"), where) for pair in _objects(item, "attributes", where)}


def _value(value: object, where: str) -> object:
    """An AnyValue as a plain one; 64-bit integers come as text."""
    if not isinstance(value, dict) or len(value) > 1:
        _refuse(where, "an attribute value such as {'stringValue': 'x'}", value)
    for kind, inner in value.items():
        match kind:
            case "intValue":
                try:
                    return int(inner)
                except (TypeError, ValueError):
                    _refuse(where, "intValue, a whole number", inner)
            case "arrayValue":
                return [_value(each, where) for each in _objects(inner, "values", where)]
            case "kvlistValue":
                return {str(pair.get("key")): _value(pair.get("value"), where) for pair in _objects(inner, "values", where)}
            case _:
                return inner
    return None


def _objects(parent: object, key: str, where: str) -> Iterable[dict[str, object]]:
    found = parent.get(key, []) if isinstance(parent, dict) else parent
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        _refuse(where, f"{key}, a list of objects", found)
    return found


def _refuse(where: str, expected: str, got: object) -> NoReturn:
    raise DataError(f"{where}: expected OpenTelemetry JSON with {expected}, got {json.dumps(got, default=str):.80}")

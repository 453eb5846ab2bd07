"""Rules for controls: a bound that catches more is compatible, one that catches less is not, all else needs to be shown again."""

import re

from pydantic import JsonValue

from auditgap.records.parity import Finding
from auditgap.release.parity.findings import both_numbers, changed, finding, show
from auditgap.release.parity.schema import schema_findings

__all__ = ["context_findings", "environment_findings", "monitor_findings", "validator_findings"]

_BOUND = re.compile(r"(min|max)(imum)?(_|[A-Z]|$)")  # max_amount, maxAmount, maximum


def context_findings(before: JsonValue, after: JsonValue) -> list[Finding]:
    """The object that authorisation decides on: another field is another decision, stricter or not."""
    return [
        f if f.delta_class in ("safety-relevant", "unknown") else f.model_copy(update={"delta_class": "safety-relevant"})
        for f in schema_findings(before, after)
    ]


def monitor_findings(before: JsonValue, after: JsonValue) -> list[Finding]:
    """A threshold that catches more is compatible; everything else about a monitor needs its calibration again."""
    found = []
    same_side = isinstance(before, dict) and isinstance(after, dict) and before.get("alarm_when") == after.get("alarm_when")
    for path, was, now in changed(before, after):
        if path == "threshold" and same_side and isinstance(before, dict) and both_numbers(was, now):
            side = before.get("alarm_when")
            says = f"alarm {side} {show(was)} is now {side} {show(now)}"
            catches_more = (side == "at-least" and now < was) or (side == "at-most" and now > was)  # type: ignore[operator]
            found.append(
                finding("compatible", "threshold-tightened", path, says)
                if catches_more
                else finding("safety-relevant", "threshold-loosened", path, says)
            )
        else:
            says = f"{show(was)} is now {show(now)}: its threshold was set without this"
            found.append(finding("safety-relevant", "monitor-changed", path, says))
    return found


def validator_findings(before: JsonValue, after: JsonValue) -> list[Finding]:
    """Numbers called `max...` or `min...` are bounds; a `schema` is a schema; any other change is safety-relevant."""
    found = []
    for path, was, now in changed(before, after):
        parts = path.split("/")
        if "schema" in parts[:-1] or parts[-1] == "schema":
            continue
        bound = _BOUND.match(parts[-1])
        upper, lower = bound is not None and bound[1] == "max", bound is not None and bound[1] == "min"
        says = f"{show(was)} is now {show(now)}"
        if (upper or lower) and both_numbers(was, now):
            tighter = now < was if upper else now > was  # type: ignore[operator]
            found.append(
                finding("compatible", "threshold-tightened", path, says)
                if tighter
                else finding("safety-relevant", "threshold-loosened", path, says)
            )
        else:
            found.append(finding("safety-relevant", "validator-changed", path, f"{says}: it may let pass what it stopped"))
    return found + _schemas_within(before, after, "")


def _schemas_within(before: JsonValue, after: JsonValue, path: str) -> list[Finding]:
    """Findings of every entry called `schema`."""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return []
    found: list[Finding] = []
    for key in sorted(before.keys() | after.keys()):
        where = f"{path}/{key}" if path else key
        was, now = before.get(key, True), after.get(key, True)
        found += schema_findings(was, now, where) if key == "schema" else _schemas_within(was, now, where)
    return found


def environment_findings(before: JsonValue, after: JsonValue) -> list[Finding]:
    keys = [value.get("key") if isinstance(value, dict) else None for value in (before, after)]
    if keys[0] != keys[1]:
        return [finding("unknown", "other-key", "key", "hashed under another key: whether the value changed cannot be said")]
    return [
        finding("safety-relevant", "environment-changed", "value", "the variable has another value, or is set now or no longer")
    ]

"""How rules see and say a change."""

from collections.abc import Iterator

from pydantic import JsonValue

from auditgap.records import canonical_json
from auditgap.records.parity import DeltaClass, Finding

__all__ = ["both_numbers", "changed", "finding", "same", "show", "text_change"]

_EXCERPT = 40  # characters of a text that a finding quotes


def same(left: JsonValue, right: JsonValue) -> bool:
    """True for one JSON value: 1 and 1.0 are the same, 1 and true are not."""
    return canonical_json(left) == canonical_json(right)


def changed(before: JsonValue, after: JsonValue, path: str = "") -> Iterator[tuple[str, JsonValue, JsonValue]]:
    """Every place in which two values differ: path, before, after; what is missing is None."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            where = f"{path}/{key}" if path else key
            if key not in before or key not in after:
                yield where, before.get(key), after.get(key)
            else:
                yield from changed(before[key], after[key], where)
    elif not same(before, after):
        yield path, before, after


def both_numbers(*values: JsonValue) -> bool:
    """True if all are numbers."""
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def show(value: JsonValue) -> str:
    """A value, shortened."""
    if value is None:
        return "nothing"
    text = repr(value) if isinstance(value, str) else canonical_json(value).decode()
    return text if len(text) <= _EXCERPT + 20 else f"{text[: _EXCERPT + 17]}..."


def text_change(rule: str, before: JsonValue, after: JsonValue, path: str) -> Finding:
    """A text that the model reads, quoted from the place where it starts to differ."""
    if isinstance(before, str) and isinstance(after, str):
        start = next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), min(len(before), len(after)))
        was, now = (repr(text[start : start + _EXCERPT]) for text in (before, after))
        return finding("safety-relevant", rule, path, f"from character {start}, {was} is now {now}: the model reads it")
    return finding("safety-relevant", rule, path, f"{show(before)} is now {show(after)}: the model reads it")


def finding(delta_class: DeltaClass, rule: str, path: str, says: str) -> Finding:
    """A finding."""
    return Finding(delta_class=delta_class, rule=rule, path=path, says=says)

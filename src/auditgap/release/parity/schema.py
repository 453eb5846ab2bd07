"""What a change of a JSON Schema does: never called compatible if an instance may be accepted that was refused before.

1. Equal subschemas are skipped. Each keyword of a subschema is a condition of its own, except those that look at one another.
2. A keyword whose condition has become stricter is compatible; one that has become weaker, or is gone, is safety-relevant.
3. What a model reads (description, title, default, examples, comments) is safety-relevant however small the change.
4. Everything else is unknown: keywords that look at one another (`contains`, `if`), that turn strict into weak (`not`, `oneOf`),
   that no rule knows, and any strictness inside a schema that refers to its own parts.

Source of what keywords mean: https://json-schema.org/draft/2020-12/json-schema-validation (unverified; the tests hold the rules
to the instances that the jsonschema library accepts).
"""

from collections.abc import Iterator

from pydantic import JsonValue

from auditgap.records import canonical_json
from auditgap.records.parity import Finding
from auditgap.release.parity.findings import both_numbers, finding, same, show, text_change

__all__ = ["schema_findings"]

_UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_READ_BY_MODEL = ("title", "description", "default", "examples", "$comment")
_CONDITIONS = ("pattern", "const", "multipleOf")  # stricter if new, weaker if gone, incomparable if changed
_TYPES = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))
_LOCAL = ("#/$defs/", "#/definitions/")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")

Schema = dict[str, JsonValue]


def schema_findings(before: JsonValue, after: JsonValue, path: str = "") -> list[Finding]:
    """What differs between two schemas in normal form, each with its class."""
    found = list(_subschema(before, after, path))
    if not (_refers_to_itself(before) or _refers_to_itself(after)):
        return found
    why = "the schema refers to its own parts, so that stricter here may be weaker there: "
    return [
        f.model_copy(update={"delta_class": "unknown", "says": why + f.says}) if f.delta_class == "compatible" else f
        for f in found
    ]


def _subschema(before: JsonValue, after: JsonValue, path: str) -> Iterator[Finding]:
    if not isinstance(before, dict | bool) or not isinstance(after, dict | bool):
        if not same(before, after):
            yield finding("unknown", "not-a-schema", path, f"{show(before)} is now {show(after)}: one of them is no schema")
        return
    old, new = _as_mapping(before), _as_mapping(after)
    if old is None and new is None:
        return
    if new is None:
        yield _stricter("nothing-accepted", path, "now accepts nothing")
    elif old is None:
        yield _weaker("something-accepted", path, "accepted nothing before")
    else:
        for key in sorted(old.keys() | new.keys()):
            if _differs(old, new, key):
                yield from _keyword(key, old, new, f"{path}/{key}" if path else key)


def _keyword(key: str, old: Schema, new: Schema, path: str) -> Iterator[Finding]:
    was, now = old.get(key), new.get(key)
    if key == "properties":
        yield from _properties(was, now, path)
    elif key == "required":
        yield from _required(was, now, path)
    elif key == "enum":
        yield _set("enum", was, now, key in old, key in new, path)
    elif key == "type":
        yield _type(was, now, key in old, key in new, path)
    elif key in _UPPER + _LOWER:
        yield _bound(key, was, now, path)
    elif key == "additionalProperties" or (key == "items" and not isinstance(was, list) and not isinstance(now, list)):
        yield from _subschema(was if key in old else True, now if key in new else True, path)
    elif key in ("allOf", "anyOf") and isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for place, (left, right) in enumerate(zip(was, now, strict=True)):
            yield from _subschema(left, right, f"{path}/{place}")
    elif key in _CONDITIONS:
        yield _condition(key, was, now, key in old, key in new, path)
    elif key == "uniqueItems" and isinstance(was, bool | None) and isinstance(now, bool | None):
        yield _weaker("unique-dropped", path, "repeated items are now accepted") if was else _stricter("unique-added", path, "")
    elif key in _READ_BY_MODEL:
        yield text_change("default-changed" if key == "default" else "text-changed", was, now, path)
    else:
        yield finding("unknown", "keyword-changed", path, f"no rule says what {show(was)} to {show(now)} does")


def _properties(was: JsonValue, now: JsonValue, path: str) -> Iterator[Finding]:
    if not isinstance(was, dict | None) or not isinstance(now, dict | None):
        yield finding("unknown", "keyword-changed", path, "expected a mapping of names to schemas")
        return
    old, new = was or {}, now or {}
    gone, came = sorted(old.keys() - new.keys()), sorted(new.keys() - old.keys())
    renamed = {name: next((other for other in came if same(old[name], new[other])), None) for name in gone}
    for name in gone:
        other = renamed[name]
        if other is not None:
            yield _weaker("property-renamed", f"{path}/{name}", f"'{name}' is now called '{other}'")
        else:
            yield _weaker("property-removed", f"{path}/{name}", f"'{name}' is gone: what it may hold is no longer checked")
    for name in came:
        if name not in renamed.values():
            yield _weaker("property-added", f"{path}/{name}", f"'{name}' is new: calls can say something that they could not")
    for name in sorted(old.keys() & new.keys()):
        yield from _subschema(old[name], new[name], f"{path}/{name}")


def _required(was: JsonValue, now: JsonValue, path: str) -> Iterator[Finding]:
    if not isinstance(was, list | None) or not isinstance(now, list | None):
        yield finding("unknown", "keyword-changed", path, f"no rule says what {show(was)} to {show(now)} does")
        return
    old, new = {str(name) for name in was or ()}, {str(name) for name in now or ()}
    for name in sorted(old - new):
        yield _weaker("required-dropped", path, f"'{name}' may now be left out")
    if new - old:
        yield _stricter("required-added", path, f"now needs {', '.join(sorted(new - old))}")


def _set(name: str, was: JsonValue, now: JsonValue, had: bool, has: bool, path: str) -> Finding:
    if not had:
        return _stricter(f"{name}-added", path, f"now one of {show(now)}")
    if not has:
        return _weaker(f"{name}-dropped", path, f"no longer one of {show(was)}")
    if not isinstance(was, list) or not isinstance(now, list):
        return finding("unknown", "keyword-changed", path, f"no rule says what {show(was)} to {show(now)} does")
    allowed = {canonical_json(value) for value in was}
    if fresh := [value for value in now if canonical_json(value) not in allowed]:
        return _weaker(f"{name}-widened", path, f"now also {show(fresh)}")
    return _stricter(f"{name}-narrowed", path, f"now only {show(now)}")


def _type(was: JsonValue, now: JsonValue, had: bool, has: bool, path: str) -> Finding:
    old, new = _types(was) if had else _TYPES, _types(now) if has else _TYPES
    if old is None or new is None:
        return finding("unknown", "keyword-changed", path, f"no rule says what {show(was)} to {show(now)} does")
    if fresh := sorted(new - old):
        return _weaker("type-widened", path, f"now also {', '.join(fresh)}")
    return _stricter("type-narrowed", path, f"{show(was)} is now {show(now)}")


def _types(value: JsonValue) -> frozenset[str] | None:
    """The types meant; a number may be an integer."""
    names = frozenset(str(v) for v in (value if isinstance(value, list) else [value]))
    if not names <= _TYPES:
        return None
    return names | {"integer"} if "number" in names else names


def _bound(key: str, was: JsonValue, now: JsonValue, path: str) -> Finding:
    says = f"{show(was)} is now {show(now)}"
    if not both_numbers(*(value for value in (was, now) if value is not None)):
        return finding("unknown", "keyword-changed", path, f"no rule says what {says} does")
    if now is None:
        return _weaker("bound-dropped", path, f"{key} {show(was)} is gone")
    if was is None:
        return _stricter("bound-added", path, f"{key} is now {show(now)}")
    tighter = now < was if key in _UPPER else now > was  # type: ignore[operator]
    return _stricter("bound-tightened", path, says) if tighter else _weaker("bound-widened", path, says)


def _condition(key: str, was: JsonValue, now: JsonValue, had: bool, has: bool, path: str) -> Finding:
    if not had:
        return _stricter(f"{key}-added", path, f"now {show(now)}")
    if not has:
        return _weaker(f"{key}-dropped", path, f"no longer {show(was)}")
    return _weaker(f"{key}-changed", path, f"{show(was)} is now {show(now)}: values may pass that did not")


def _refers_to_itself(schema: JsonValue) -> bool:
    """True if a reference leads anywhere but into the definitions, which no rule calls stricter."""
    if isinstance(schema, list):
        return any(_refers_to_itself(item) for item in schema)
    if not isinstance(schema, dict):
        return False
    leads = [schema[key] for key in _REFERENCES if key in schema]
    return any(not (isinstance(to, str) and to.startswith(_LOCAL)) for to in leads) or any(
        map(_refers_to_itself, schema.values())
    )


def _as_mapping(schema: Schema | bool) -> Schema | None:
    """A schema as its keywords; None for `false`, which accepts nothing."""
    if schema is False:
        return None
    return schema if isinstance(schema, dict) else {}


def _differs(old: Schema, new: Schema, key: str) -> bool:
    return (key in old) != (key in new) or not same(old[key], new[key])


def _weaker(rule: str, path: str, says: str) -> Finding:
    return finding("safety-relevant", rule, path, says)


def _stricter(rule: str, path: str, says: str) -> Finding:
    return finding("compatible", rule, path, says or "stricter than before")

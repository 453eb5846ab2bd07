"""No widening is ever called compatible: the rules are held to the instances that jsonschema accepts before and after."""

import itertools
import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from pydantic import JsonValue

from auditgap.records.parity import gravest
from auditgap.release.capture.normal import normal_schema
from auditgap.release.parity import schema_findings

SCALARS: tuple[JsonValue, ...] = (None, True, False, -1, 0, 1, 1.5, 2, 3, 5, "", "a", "b", "ab", "abc", "1")
LISTS: tuple[JsonValue, ...] = ([], [1], [1, 1], ["a"], [1, "a"], [0, 1, 2], [None])
OBJECTS: tuple[JsonValue, ...] = tuple(
    {key: value for key, value in zip("abc", values, strict=True) if value != "absent"}
    for values in itertools.product(("absent", 0, 3, "a"), ("absent", 2, None, [1]), ("absent", "b"))
)
INSTANCES = SCALARS + LISTS + OBJECTS

TYPES = ("string", "number", "integer", "object", "array", "null", "boolean")
NAMES = ("a", "b", "c")
INNER = ("not", "items", "if", "then", "contains", "propertyNames", "additionalProperties")
INNER_LISTS = ("anyOf", "allOf", "oneOf")
BOUNDS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)


def a_schema(rng: random.Random, depth: int = 2) -> JsonValue:
    """A schema with some of the keywords that the rules know, and some that they do not."""
    if rng.random() < 0.1:
        return rng.choice([{}, True, False])
    keys = ("type", "enum", "const", "required", "properties", "multipleOf", "pattern", "uniqueItems", "description")
    chosen = rng.sample(keys + BOUNDS + (INNER + INNER_LISTS if depth else ()), rng.randint(1, 4))
    return {key: a_value(rng, key, depth) for key in chosen}


def a_value(rng: random.Random, key: str, depth: int) -> JsonValue:
    """What a keyword may say."""
    if key in INNER:
        return a_schema(rng, depth - 1)
    if key in INNER_LISTS:
        return [a_schema(rng, depth - 1) for _ in range(rng.randint(1, 2))]
    match key:
        case "type":
            return rng.choice([rng.choice(TYPES), rng.sample(TYPES, rng.randint(1, 3))])  # type: ignore[return-value]
        case "enum":
            return rng.sample(SCALARS, rng.randint(1, 4))
        case "const":
            return rng.choice(SCALARS)
        case "required":
            return rng.sample(NAMES, rng.randint(0, 3))  # type: ignore[return-value]
        case "properties":
            return {name: a_schema(rng, max(depth - 1, 0)) for name in rng.sample(NAMES, rng.randint(0, 3))}
        case "multipleOf":
            return rng.randint(1, 3)
        case "pattern":
            return rng.choice(["a", "^a", "b$"])
        case "uniqueItems":
            return rng.random() < 0.5
        case "description":
            return rng.choice("xy")
    return rng.randint(0, 3)


def redrawn(rng: random.Random, schema: JsonValue) -> JsonValue:
    """The schema with one place drawn anew, as deep as it goes: the change that a release makes."""
    if not isinstance(schema, dict) or not schema:
        return a_schema(rng, 1)
    key = rng.choice(sorted(schema))
    value = schema[key]
    deeper = rng.random() < 0.7
    if deeper and key in INNER and isinstance(value, dict):
        return schema | {key: redrawn(rng, value)}
    if deeper and key in INNER_LISTS and isinstance(value, list):
        return schema | {key: [redrawn(rng, value[0]), *value[1:]]}
    if deeper and key == "properties" and isinstance(value, dict) and value:
        name = rng.choice(sorted(value))
        return schema | {key: value | {name: redrawn(rng, value[name])}}
    kept = {name: item for name, item in schema.items() if name != key}
    if rng.random() < 0.3:
        return kept
    fresh = key if rng.random() < 0.6 else rng.choice(("required", "type", "enum", *BOUNDS, *INNER))
    return schema | {fresh: a_value(rng, fresh, 1)}


def pairs(seed: int, n: int) -> Iterator[tuple[JsonValue, JsonValue]]:
    """Schemas, each with the same after one to three changes."""
    rng = random.Random(seed)
    for _ in range(n):
        before = after = a_schema(rng)
        for _ in range(rng.randint(1, 3)):
            after = redrawn(rng, after)
        yield before, after


def accepted(schema: JsonValue) -> set[int]:
    validator = Draft202012Validator(schema)  # type: ignore[arg-type]
    return {place for place, instance in enumerate(INSTANCES) if validator.is_valid(instance)}


def classed(before: JsonValue, after: JsonValue) -> str:
    found = schema_findings(normal_schema(before), normal_schema(after))
    return gravest(tuple(found)) if found else "identical"


def n_widened(seed: int, n: int) -> int:
    """How many of the changes accept an instance that was refused before; every one of them must be flagged."""
    widened = 0
    for before, after in pairs(seed, n):
        if accepted(after) - accepted(before):
            widened += 1
            assert classed(before, after) in ("safety-relevant", "unknown"), (before, after)
    return widened


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_accepts_more_is_never_called_harmless(seed: int) -> None:
    n_widened(seed, 20)


@pytest.mark.slow
def test_what_accepts_more_is_never_called_harmless_in_thousands_of_changes() -> None:
    assert n_widened(0, 20_000) > 7_000


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_any_difference_in_acceptance_is_seen_and_none_is_seen_in_nothing(seed: int) -> None:
    for before, after in pairs(seed, 20):
        assert classed(before, before) == "identical"
        if accepted(after) != accepted(before):
            assert classed(before, after) != "identical", (before, after)


def test_the_oracle_sees_widenings() -> None:
    """The property above is not empty: every one of these is seen by the oracle and by the rules."""
    wide = [
        ({"maximum": 2}, {"maximum": 3}),
        ({"required": ["a"]}, {}),
        ({"enum": ["a"]}, {"enum": ["a", "b"]}),
        ({"type": "integer"}, {"type": "number"}),
        ({"not": {"minimum": 0}}, {"not": {"minimum": 2}}),
        ({"oneOf": [{"minimum": 0}, {"minimum": 1}]}, {"oneOf": [{"minimum": 0}, {"minimum": 3}]}),
        ({"additionalProperties": False}, {"additionalProperties": False, "properties": {"a": {}}}),
    ]
    for before, after in wide:
        assert accepted(after) - accepted(before), (before, after)
        assert classed(before, after) in ("safety-relevant", "unknown")


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ({"required": ["a", "b"]}, {"required": ["a"]}, "required-dropped"),
        ({"enum": [1]}, {"enum": [1, 2]}, "enum-widened"),
        ({"enum": [1]}, {"enum": [True]}, "enum-widened"),
        ({"enum": [1]}, {}, "enum-dropped"),
        ({"maximum": 1}, {"maximum": 2}, "bound-widened"),
        ({"minimum": 1}, {"minimum": 0}, "bound-widened"),
        ({"maxLength": 1}, {}, "bound-dropped"),
        ({"pattern": "^a$"}, {"pattern": "a"}, "pattern-changed"),
        ({"pattern": "^a$"}, {}, "pattern-dropped"),
        ({"additionalProperties": False}, {}, "something-accepted"),
        ({"type": "string"}, {"type": ["null", "string"]}, "type-widened"),
        ({"type": "string"}, {}, "type-widened"),
        ({"properties": {"a": {"type": "string"}}}, {"properties": {"b": {"type": "string"}}}, "property-renamed"),
        ({"properties": {}}, {"properties": {"a": {}}}, "property-added"),
        ({"properties": {"a": {}}}, {"properties": {}}, "property-removed"),
        ({"description": "Reads"}, {"description": "Reads."}, "text-changed"),
        ({"properties": {"a": {"title": "A"}}}, {"properties": {"a": {"title": "B"}}}, "text-changed"),
        ({"default": 1}, {"default": 2}, "default-changed"),
        ({"$comment": "x"}, {"$comment": "y"}, "text-changed"),
        ({"uniqueItems": True}, {}, "unique-dropped"),
    ],
)
def test_what_is_weaker_or_read_by_the_model_is_safety_relevant(before: JsonValue, after: JsonValue, rule: str) -> None:
    findings = schema_findings(normal_schema(before), normal_schema(after))
    assert (rule, "safety-relevant") in [(f.rule, f.delta_class) for f in findings]


@pytest.mark.parametrize(
    ("before", "after", "rule"),
    [
        ({"enum": [1, 2]}, {"enum": [1]}, "enum-narrowed"),
        ({}, {"required": ["a"]}, "required-added"),
        ({"maximum": 2}, {"maximum": 1}, "bound-tightened"),
        ({}, {"pattern": "a"}, "pattern-added"),
        ({"type": ["string", "null"]}, {"type": "string"}, "type-narrowed"),
        ({}, {"additionalProperties": False}, "nothing-accepted"),
        ({"anyOf": [{"maximum": 2}]}, {"anyOf": [{"maximum": 1}]}, "bound-tightened"),
    ],
)
def test_what_is_only_stricter_is_compatible(before: JsonValue, after: JsonValue, rule: str) -> None:
    (finding,) = schema_findings(normal_schema(before), normal_schema(after))
    assert (finding.rule, finding.delta_class) == (rule, "compatible")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"format": "email"}, {"format": "uri"}),
        ({"$ref": "#/$defs/a", "$defs": {"a": {}}}, {"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}),
        ({"x-anything": 1}, {"x-anything": 2}),
        ({"not": {"type": "string"}}, {"not": {"type": ["string", "null"]}}),
        ({"maximum": 2**60}, {"maximum": 2**61}),
        (
            {"properties": {"a": {"maximum": 2}}, "not": {"$ref": "#/properties/a"}},
            {"properties": {"a": {"maximum": 1}}, "not": {"$ref": "#/properties/a"}},
        ),
        ({"properties": 1}, {"properties": 2}),
        (1, {"type": "string"}),
        ({"items": "x"}, {"items": {"type": "string"}}),
        ({"required": True}, {"required": False}),
        ({"type": "file"}, {"type": "string"}),
    ],
)
def test_what_no_rule_knows_is_unknown(before: JsonValue, after: JsonValue) -> None:
    assert classed(before, after) == "unknown"


def test_order_in_sets_is_no_difference() -> None:
    one = {"required": ["a", "b"], "properties": {"a": {"enum": [1, 2]}}, "type": ["object", "null"]}
    other = {"type": ["null", "object"], "properties": {"a": {"enum": [2, 1.0]}}, "required": ["b", "a"]}
    assert classed(one, other) == "identical"


def test_the_real_schemas_do_not_differ_from_themselves(shared_data: Path) -> None:
    for path in sorted((shared_data / "mcp_tools").glob("*.json")):
        schema = json.loads(path.read_text())["inputSchema"]
        assert classed(schema, schema) == "identical"
        assert classed(schema, schema | {"required": []}) == ("safety-relevant" if schema.get("required") else "identical"), path

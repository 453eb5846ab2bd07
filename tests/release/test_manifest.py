"""A fingerprint is the identity of a release: what has no meaning does not move it, what has does; a forged one is refused."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import JsonValue, ValidationError

from auditgap.errors import DataError, PlanError
from auditgap.records import now
from auditgap.records.manifest import RELEVANCE, Component, ComponentKind, ReleaseManifest
from auditgap.release.capture import component, read_manifest, write_manifest
from auditgap.release.capture.normal import normal_text

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def manifest_of(*components: Component, captured: str = "declared") -> ReleaseManifest:
    return ReleaseManifest(name="r", captured=captured, captured_at=now(), components=components)  # type: ignore[arg-type]


def shuffled(value: JsonValue, rng: random.Random) -> JsonValue:
    """The same JSON value with its keys in another order."""
    if isinstance(value, dict):
        keys = list(value)
        rng.shuffle(keys)
        return {key: shuffled(value[key], rng) for key in keys}
    return [shuffled(item, rng) for item in value] if isinstance(value, list) else value


def sets_shuffled(schema: JsonValue, rng: random.Random) -> JsonValue:
    """The same schema with its set-like arrays in another order."""
    if isinstance(schema, list):
        return [sets_shuffled(item, rng) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for key, value in schema.items():
        if key in ("required", "enum", "type") and isinstance(value, list):
            found[key] = rng.sample(value, len(value))
        else:
            found[key] = sets_shuffled(value, rng)
    return found


@settings(max_examples=60, deadline=None)
@given(value=VALUES, seed=st.integers(0, 2**16), indent=st.sampled_from([None, 0, 3]))
def test_key_order_and_white_space_do_not_move_the_fingerprint(value: JsonValue, seed: int, indent: int | None) -> None:
    respelled = json.loads(json.dumps(shuffled(value, random.Random(seed)), indent=indent))
    one, other = (manifest_of(component("sampling", "main", v, source="s")) for v in (value, respelled))
    assert one.fingerprint() == other.fingerprint()


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_order_in_sets_and_among_components_does_not_move_the_fingerprint(shared_data: Path, seed: int) -> None:
    tools = [json.loads(path.read_text()) for path in sorted((shared_data / "mcp_tools").glob("*.json"))]
    rng = random.Random(seed)
    again = rng.sample([shuffled(sets_shuffled(tool, rng), rng) for tool in tools], len(tools))
    one, other = (
        manifest_of(*(component("tool", f"github/{tool['name']}", tool, source="s") for tool in which))  # type: ignore[index,call-overload]
        for which in (tools, again)
    )
    assert len(tools) == 39
    assert one.fingerprint() == other.fingerprint()


@settings(max_examples=60, deadline=None)
@given(value=VALUES)
def test_what_is_signed_reads_back_as_the_same_bytes(value: JsonValue) -> None:
    manifest = manifest_of(component("sampling", "main", {"value": value}, source="s"))
    for text in (manifest.canonical(), manifest.model_dump_json().encode()):
        assert ReleaseManifest.parse(json.loads(text), where="x").canonical() == manifest.canonical()


@settings(max_examples=60, deadline=None)
@given(one=VALUES, other=VALUES)
def test_two_values_have_one_fingerprint_only_if_they_are_one_value(one: JsonValue, other: JsonValue) -> None:
    def typed(value: JsonValue) -> object:
        """Python's equality without `True == 1`."""
        if isinstance(value, dict):
            return {key: typed(item) for key, item in value.items()}
        return [typed(item) for item in value] if isinstance(value, list) else (isinstance(value, bool), value)

    same = (
        manifest_of(component("sampling", "main", one, source="s")).fingerprint()
        == manifest_of(component("sampling", "main", other, source="s")).fingerprint()
    )
    assert same == (typed(one) == typed(other))


def test_a_property_called_like_a_set_keyword_keeps_its_order() -> None:
    def fingerprint(order: list[str]) -> str:
        schema = {"properties": {"enum": {"default": {"enum": order}, "items": {"const": {"required": order}}}}}
        return manifest_of(component("tool", "s/t", {"name": "t", "inputSchema": schema}, source="s")).fingerprint()

    assert fingerprint(["a", "b"]) != fingerprint(["b", "a"])


def test_only_blanks_at_line_ends_are_nothing_in_a_prompt() -> None:
    assert normal_text("a \t\r\nb\n\n") == normal_text("a\nb")
    for other in ("a\u2028b", "a\nb\u200b", "a\nb\u00a0", "a\x0bb", " a\nb", "a\n\nb"):
        assert normal_text(other) != normal_text("a\nb")


def test_order_in_a_chain_moves_the_fingerprint() -> None:
    links = [component("middleware", name, {}, source="s", order=place) for place, name in enumerate("ab")]
    swapped = [component("middleware", name, {}, source="s", order=place) for place, name in enumerate("ba")]
    assert manifest_of(*links).fingerprint() != manifest_of(*swapped).fingerprint()
    assert manifest_of(*links).fingerprint() == manifest_of(*reversed(links)).fingerprint()


def test_every_kind_has_a_relevance_and_none_may_be_lowered() -> None:
    assert set(RELEVANCE) == set(ComponentKind.__args__)  # type: ignore[attr-defined]
    control = component("redaction", "main", {"enabled": True}, source="s")
    with pytest.raises(ValidationError, match="a redaction has safety_relevance 'control'"):
        Component.model_validate(control.model_dump() | {"safety_relevance": "ground"})


def test_content_that_does_not_have_its_digest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    write_manifest(manifest_of(component("approval", "main", {"above": 100}, source="s")), path)
    assert read_manifest(path).components[0].content == {"above": 100}
    path.write_text(path.read_text().replace("100", "1000"))
    with pytest.raises(PlanError, match="the content does not have the digest"):
        read_manifest(path)


def test_a_component_given_twice_is_refused() -> None:
    one = component("approval", "main", {}, source="s")
    with pytest.raises(ValidationError, match="given twice: approval main"):
        manifest_of(one, one)


@pytest.mark.parametrize("version", ["auditgap.dev/release-manifest/v2", "auditgap.dev/release-manifest/v0", None])
def test_a_manifest_of_another_version_is_refused(tmp_path: Path, version: str | None) -> None:
    path = tmp_path / "m.json"
    document = json.loads(manifest_of(component("approval", "main", {}, source="s")).model_dump_json())
    path.write_text(json.dumps(document | {"schema_version": version}))
    with pytest.raises(
        PlanError, match=r"expected a manifest of version auditgap.dev/release-manifest/v1, got .*capture the release again"
    ):
        read_manifest(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "expected JSON"),
        ("[1]", "expected a manifest of version"),
        ("[" * 100_000, "nested too deep|expected JSON"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ('{"a": NaN}', "NaN is not JSON"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises((PlanError, DataError), match=says):
        read_manifest(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {"a": "\ud800"}, object()])
def test_what_json_has_no_word_for_is_refused(value: object) -> None:
    with pytest.raises(DataError, match="expected"):
        component("sampling", "main", value, source="s")


def test_a_value_that_nests_without_end_is_refused() -> None:
    value: list[object] = []
    for _ in range(500):
        value = [value]
    with pytest.raises(DataError, match="at most 60 nested levels"):
        component("sampling", "main", value, source="s")

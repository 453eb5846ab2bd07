"""A declared manifest holds every part of a release, resolves what it names, and never holds a secret."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from auditgap.errors import AuditgapError, DataError, PlanError
from auditgap.records import digest_of
from auditgap.records.manifest import ComponentKind, ReleaseManifest
from auditgap.release.capture import capture_declared, compare_declared_observed
from auditgap.release.capture.files import file_digests
from auditgap.release.capture.prompts import is_alias, render_chat

EXAMPLE = Path(__file__).parents[2] / "examples" / "release"
SECRET = "hunter2-hunter2-hunter2"
KEY = "0123456789abcdef0123456789abcdef"
ENVIRON = {"PAYMENTS_API_KEY": SECRET, "AUDITGAP_ENVIRONMENT_KEY": KEY}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A copy of the example that a test may change."""
    return Path(shutil.copytree(EXAMPLE, tmp_path / "release")) / "release.yaml"


def captured(path: Path, environ: dict[str, str] = ENVIRON) -> ReleaseManifest:
    return capture_declared(path, environ=environ)


def edited(path: Path, **sections: object) -> Path:
    """The release file with sections replaced."""
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | sections))
    return path


def content(manifest: ReleaseManifest, kind: ComponentKind, name: str = "main") -> dict:
    (found,) = [c.content for c in manifest.of(kind) if c.id == name]
    assert isinstance(found, dict)
    return found


def test_the_example_has_every_kind_but_those_it_cannot_have() -> None:
    kinds = {c.kind for c in captured(EXAMPLE / "release.yaml").components}
    assert set(ComponentKind.__args__) - kinds == {"model", "adapter", "offered_tool"}  # type: ignore[attr-defined]


def test_two_captures_of_one_release_have_one_fingerprint(release: Path) -> None:
    assert captured(release).fingerprint() == captured(EXAMPLE / "release.yaml").fingerprint()


def test_files_are_digested_as_they_are(release: Path) -> None:
    weights = content(captured(release), "weights")
    assert weights["model.safetensors"]["content"] == digest_of((EXAMPLE / "model" / "model.safetensors").read_bytes())
    (release.parent / "model" / "README.md").write_text("read by nobody")
    assert content(captured(release), "weights") == weights
    (release.parent / "model" / "extra.bin").write_text("loaded, perhaps")
    assert "extra.bin" in content(captured(release), "weights")


def test_the_order_of_the_chain_is_kept(release: Path) -> None:
    assert [c.id for c in captured(release).of("middleware")] == ["validate", "authorise", "approve", "audit"]


def test_an_alias_is_resolved_and_the_prompt_is_rendered(release: Path) -> None:
    prompt = content(captured(release), "system_prompt")
    assert (prompt["alias"], prompt["version"]) == ("production", "v11")
    assert "assistant of Example Bank" in prompt["rendered"] and "{{ company }}" in prompt["template"]


def test_a_prompt_may_be_kept_as_digests_only(release: Path) -> None:
    prompt = yaml.safe_load(release.read_text())["system_prompt"]
    manifest = captured(edited(release, system_prompt=prompt | {"keep_text": False}))
    assert manifest.of("system_prompt")[0].content is None
    assert "Example Bank" not in manifest.model_dump_json()
    assert manifest.fingerprint() == captured(EXAMPLE / "release.yaml").fingerprint()


def test_a_chat_template_is_rendered_on_the_canary(release: Path) -> None:
    before = content(captured(release), "chat_template")
    assert before["canary"]["roles"] == "system, user, assistant"
    template = release.parent / "model" / "chat_template.jinja"
    template.write_text(template.read_text().replace(" | trim", ""))
    assert content(captured(release), "chat_template")["canary"]["sha256"] != before["canary"]["sha256"]


def test_a_template_without_a_system_role_is_rendered_without_one() -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages | length }}"
    assert render_chat(refusing) == {"roles": "user, assistant", "sha256": digest_of(b"3")}
    assert render_chat("{{ raise_exception('never') }}") == {"refused": "never"}


def test_a_template_cannot_leave_the_sandbox() -> None:
    assert "refused" in render_chat("{{ ''.__class__.__mro__[1].__subclasses__() }}")


def test_the_real_chat_template_of_a_tokenizer_file_is_read(release: Path) -> None:
    template = (release.parent / "model" / "chat_template.jinja").read_text()
    (release.parent / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    one, other = captured(release), captured(edited(release, chat_template="tokenizer_config.json"))
    assert one.fingerprint() == other.fingerprint()


def test_the_real_model_is_captured(stories: Path, release: Path) -> None:
    weights = content(captured(edited(release, weights=str(stories), tokenizer=[str(stories / "tokenizer.json")])), "weights")
    assert {"config.json", "model.safetensors"} <= set(weights)


def test_the_real_tools_are_captured(shared_data: Path, release: Path) -> None:
    server = {"identity": {"name": "github", "version": "1"}, "protocol": "2025-11-25", "tools": str(shared_data / "mcp_tools")}
    tools = captured(edited(release, servers={"github": server})).of("tool")
    assert len(tools) == 39 and all(tool.id.startswith("github/") for tool in tools)


def test_environment_values_are_kept_under_a_key_only(release: Path) -> None:
    def value(environ: dict[str, str]) -> dict:
        return content(captured(release, environ), "environment", "PAYMENTS_API_KEY")

    one = value(ENVIRON)
    assert value(ENVIRON) == one and value(ENVIRON | {"PAYMENTS_API_KEY": "other"})["value"] != one["value"]
    assert value(ENVIRON | {"AUDITGAP_ENVIRONMENT_KEY": KEY[::-1]})["key"] != one["key"]
    assert content(captured(release), "environment", "PAYMENTS_REGION")["value"] is None
    same = captured(release, ENVIRON | {"PAYMENTS_REGION": SECRET})
    values = [content(same, "environment", name)["value"] for name in ("PAYMENTS_API_KEY", "PAYMENTS_REGION")]
    assert values[0] != values[1]


def test_no_secret_is_in_the_bytes_of_a_manifest(release: Path) -> None:
    manifest = captured(release)
    for text in (manifest.model_dump_json(), manifest.canonical().decode()):
        assert SECRET not in text and KEY not in text


@pytest.mark.parametrize(
    "config",
    [
        {"api_key": SECRET},
        {"nested": [{"password": SECRET}]},
        {"header": "Bearer abcdefghijklmnop"},
        {"note": "-----BEGIN RSA PRIVATE KEY-----"},
        {"anything": "use sk-abcdefghijklmnopqrstuvwx"},
    ],
)
def test_configuration_with_a_secret_is_refused_without_repeating_it(release: Path, config: dict) -> None:
    with pytest.raises(DataError, match="looks like a secret in the clear") as refused:
        captured(edited(release, logging=config))
    assert SECRET not in str(refused.value)


def test_a_reference_to_a_secret_and_a_number_of_tokens_are_none(release: Path) -> None:
    captured(edited(release, logging={"api_key": "${PAYMENTS_API_KEY}", "max_tokens": 5, "tokenizer": "bpe"}))


@pytest.mark.parametrize("name", ["latest", "gpt-x-latest", "org/model@main", "prompt:production", "llama:latest", "Prod"])
def test_names_that_can_move_are_aliases(name: str) -> None:
    assert is_alias(name)


@pytest.mark.parametrize("name", ["gpt-x-2026-01-01", "org/model@0123abc", "v12", "maintenance-1", "latest-2026"])
def test_names_that_cannot_move_are_none(name: str) -> None:
    assert not is_alias(name)


@pytest.mark.parametrize(
    ("sections", "error", "says"),
    [
        ({"model": {"id": "gpt-x-latest"}}, PlanError, "'gpt-x-latest' is a mutable alias.*resolves_to"),
        (
            {"system_prompt": {"file": "prompts/system-v11.j2", "version": "production"}},
            PlanError,
            "'production' is a mutable alias",
        ),
        ({"system_prompt": {"registry": "prompts/registry.yaml", "version": "latest"}}, PlanError, "'latest' is a mutable alias"),
        ({"system_prompt": {"registry": "prompts/registry.yaml", "version": "v13"}}, PlanError, "no version 'v13'"),
        ({"system_prompt": {"version": "v11"}}, PlanError, "expected a file, or a registry"),
        ({"system_prompt": {"file": "prompts/system-v11.j2", "variables": {"company": "x"}}}, DataError, "cannot be rendered"),
        ({"weights": "nowhere"}, DataError, "expected a file or folder"),
        ({"lockfile": "model/config.json"}, DataError, "expected a CycloneDX document"),
        ({"middlewares": []}, PlanError, "did you mean 'middleware'"),
        ({"format": "auditgap.dev/release/v2"}, PlanError, "auditgap.dev/release/v1"),
        ({"environment": {"names": ["A"], "key_variable": "A"}}, PlanError, "holds the key"),
        ({"environment": {"names": ["A"], "key_variable": "UNSET"}}, PlanError, "at least 16 bytes"),
        ({"environment": {"names": ["A"]}}, PlanError, "exactly one of key_file and key_variable"),
        ({"middleware": [{"id": "a"}, {"id": "a"}]}, AuditgapError, "given twice: middleware a"),
    ],
)
def test_what_cannot_be_captured_is_refused(release: Path, sections: dict, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        captured(edited(release, **sections))


def test_a_model_alias_that_was_looked_up_is_kept_with_what_it_stands_for(release: Path) -> None:
    model = {"id": "gpt-x-latest", "resolves_to": "gpt-x-2026-01-01"}
    assert content(captured(edited(release, model=model)), "model") == {"alias": "gpt-x-latest", "id": "gpt-x-2026-01-01"}


def test_a_link_to_a_file_counts_as_the_file_and_a_broken_link_is_refused(release: Path, tmp_path: Path) -> None:
    before = content(captured(release), "weights")
    weights = release.parent / "model" / "model.safetensors"
    weights.rename(tmp_path / "blob")
    weights.symlink_to(tmp_path / "blob")
    assert content(captured(release), "weights") == before
    (release.parent / "model" / "more").symlink_to(tmp_path / "gone")
    with pytest.raises(DataError, match="neither a file nor a plain folder"):
        file_digests(release.parent / "model")


@pytest.mark.parametrize(
    ("tools", "says"),
    [
        ([], "got none"),
        ([{"description": "x"}], "a tool definition with a name"),
        ([{"name": "a"}, {"name": "a"}], "'a' is given twice"),
        (["a"], "a tool definition with a name"),
    ],
)
def test_tools_that_are_none_are_refused(release: Path, tools: list, says: str) -> None:
    (release.parent / "tools" / "payments.json").write_text(json.dumps({"tools": tools}))
    with pytest.raises(DataError, match=says):
        captured(release)


def test_a_lockfile_is_the_set_of_its_packages(release: Path) -> None:
    folder = release.parent
    before = content(captured(release), "lockfile")
    (folder / "requirements.txt").write_text("# made today\nmcp==2.3.0   # pinned\n\nhttpx==0.28.1\n")
    assert content(captured(release), "lockfile") == before == {"httpx": ["httpx==0.28.1"], "mcp": ["mcp==2.3.0"]}
    package = 'name = "a"\nversion = "1"\n'
    (folder / "uv.lock").write_text(f"version = 1\n[[package]]\n{package}")
    assert content(captured(edited(release, lockfile="uv.lock")), "lockfile") == {"a": [{"name": "a", "version": "1"}]}
    bom = {"bomFormat": "CycloneDX", "serialNumber": "urn:1", "components": [{"type": "library", "name": "a", "version": "1"}]}
    (folder / "bom.json").write_text(json.dumps(bom))
    one = content(captured(edited(release, lockfile="bom.json")), "lockfile")
    (folder / "bom.json").write_text(json.dumps(bom | {"serialNumber": "urn:2"}))
    assert content(captured(release), "lockfile") == one


def test_two_declared_manifests_are_not_checked_against_each_other(release: Path) -> None:
    with pytest.raises(AuditgapError, match="expected a declared and an observed manifest"):
        compare_declared_observed(captured(release), captured(release))

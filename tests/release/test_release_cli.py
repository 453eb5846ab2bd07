"""`auditgap release` as a user meets it: output, exit codes, errors in one line."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from auditgap.cli import _COMMANDS, main
from auditgap.release.observation import Observation, observe_into

EXAMPLE = Path(__file__).parents[2] / "examples" / "release"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_COMMANDS, "release", "auditgap.cli.release")
    monkeypatch.setenv("AUDITGAP_ENVIRONMENT_KEY", "0123456789abcdef0123456789abcdef")
    monkeypatch.setenv("PAYMENTS_API_KEY", "hunter2-hunter2")


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    code = 0
    try:
        main(["release", *(str(arg) for arg in args)])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture
def two(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> tuple[Path, Path]:
    """The example's manifest, and that of a release with redaction off and a monitor tightened."""
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    assert call(capsys, "capture", "--declared", EXAMPLE / "release.yaml", "--out", before)[0] == 0
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "release"))
    text = (folder / "release.yaml").read_text()
    (folder / "release.yaml").write_text(text.replace("{enabled: true", "{enabled: false").replace("0.82", "0.7"))
    assert call(capsys, "capture", "--declared", folder / "release.yaml", "--out", after)[0] == 0
    return before, after


def test_a_release_is_captured_and_shown(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "show", two[0])
    assert code == 0 and "payments/transfer" in out and "fingerprint sha256:" in out
    code, out, _ = call(capsys, "show", two[0], "--json")
    assert json.loads(out)["manifest"]["schema_version"] == "auditgap.dev/release-manifest/v1"


def test_a_release_is_held_back_until_its_change_is_waived(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = call(capsys, "diff", *two)
    assert code == 1 and "redaction-changed" in out and "held-back" in out and "threshold-tightened" in out
    code, out, _ = call(capsys, "diff", *two, "--json", "--on", "2026-11-21")
    document = json.loads(out)
    assert code == 1 and document["verdict"] == "held-back"
    waiver = {
        "kind": "waiver",
        "change": document["changes"]["redaction main"],
        "approver": "R. Owner",
        "reason": "test data only",
        "expires": "2026-12-31",
    }
    covers = tmp_path / "covers.yaml"
    covers.write_text(yaml.safe_dump({"format": "auditgap.dev/release-coverage/v1", "covers": [waiver]}))
    code, out, _ = call(capsys, "diff", *two, "--waivers", covers, "--on", "2026-11-21")
    assert code == 0 and "in-parity" in out
    code, out, _ = call(capsys, "diff", *two, "--waivers", covers, "--on", "2027-01-01")
    assert (code == 1 and "expired on 2026-12-31" in " ".join(out.split()).replace(" │ ", " ")[-10_000:]) or "held-back" in out


def test_a_release_does_not_differ_from_itself(two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "diff", two[0], two[0])
    assert code == 0 and "33 identical, 0 differ, 0 uncovered: in-parity" in out


def test_what_runs_is_checked_against_what_was_declared(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    observe = observe_into(tmp_path / "canary.jsonl")
    tools = json.loads((EXAMPLE / "tools" / "payments.json").read_text())["tools"]
    observe(Observation(what="tools", server="payments", content=tools[:1]))
    observed = tmp_path / "observed.json"
    assert call(capsys, "capture", "--observed", tmp_path / "canary.jsonl", "--out", observed)[0] == 0
    code, out, _ = call(capsys, "check", two[0], observed)
    assert code == 1 and "never-seen" in out and "1 agree" in out and "redaction main" in out
    code, out, _ = call(capsys, "check", two[0], observed, "--json")
    assert code == 1 and json.loads(out)["verdict"] == "differs"


def test_bad_input_is_one_line_and_exit_2(two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "v2.json"
    other.write_text(two[0].read_text().replace("release-manifest/v1", "release-manifest/v2"))
    for arguments, says in (
        (("diff", two[0], other), "expected a manifest of version auditgap.dev/release-manifest/v1"),
        (("diff", two[0], tmp_path / "none.json"), "expected a readable file"),
        (("check", two[0], two[1]), "expected a declared and an observed manifest"),
        (("diff", *two, "--waivers", two[0]), "covers"),
        (("capture", "--declared", two[0], "--out", tmp_path / "x.json"), "format"),
    ):
        code, out, err = call(capsys, *arguments)
        assert (code, out) == (2, "") and says in err and err.count("\n") == 1, arguments
    assert call(capsys, "capture", "--out", tmp_path / "x.json")[0] == 2


def test_evidence_needs_a_store_that_exists(two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "diff", *two, "--store", tmp_path / "nowhere")
    assert code == 3 and "error:" in err


def test_the_planted_drifts_of_the_documented_example_are_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers and verdicts that docs/parity.md prints."""
    before, after, observed = (tmp_path / f"{name}.json" for name in ("evaluated", "next", "observed"))
    for flag, source, out in (
        ("--declared", "release.yaml", before),
        ("--declared", "release-next.yaml", after),
        ("--observed", "observations.jsonl", observed),
    ):
        assert call(capsys, "capture", flag, EXAMPLE / source, "--out", out)[0] == 0
    code, out, _ = call(capsys, "diff", before, after)
    assert code == 1 and "27 identical, 7 differ, 6 uncovered: held-back" in out
    code, out, _ = call(capsys, "check", before, observed)
    assert code == 1 and "5 agree, 3 do not: differs" in out and "Then call transfer" in " ".join(out.split())

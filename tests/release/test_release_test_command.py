"""`release test` and `release faults`: the exit code says what was shown."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from auditgap.cli import release_test as command
from auditgap.errors import PlanError, UsageError
from auditgap.incidents import load_release
from auditgap.release.cases import shipped

pytestmark = pytest.mark.usefixtures("effects_in_memory")


def _run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(command.test, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_case_that_holds_exits_zero() -> None:
    code, shown = _run("--case", "RIC-040")
    assert code == 0
    assert "1 of 1 passed" in shown


def test_a_case_without_its_control_exits_one() -> None:
    code, shown = _run("--case", "RIC-040-monitor-down", "--without", "CTL-monitor")
    assert code == 1
    assert "BROKEN" in shown


def test_live_without_an_agent_exits_three() -> None:
    code, shown = _run("--case", "RIC-001", "--mode", "live")
    assert code == 3
    assert "NOT_RUN" in shown


def test_json_is_the_whole_run() -> None:
    code, shown = _run("--case", "RIC-040", "--json")
    run = json.loads(shown)
    assert (code, run["results"][0]["verdict"], run["system"]) == (0, "HELD", "reference-agent")


def test_a_folder_of_ones_own_may_use_the_shipped_stimuli(tmp_path: Path) -> None:
    source = (shipped() / "RIC-040-monitor-down.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(source.replace("RIC-040-monitor-down", "RIC-500-mine"))
    assert _run("--suite", str(tmp_path))[0] == 0
    (tmp_path / "mine.yaml").write_text(source.replace("effects.size() == 0", "true"))
    with pytest.raises(PlanError, match="cannot fail"):
        _run("--suite", str(tmp_path))


def test_controls_left_out_in_turn_are_a_table() -> None:
    code, shown = _run("--case", "RIC-040", "--in-turn")
    assert code == 1  # one case cannot guard thirteen controls
    assert "each control left out in turn" in shown


RELEASE = """
import json
from auditgap.incidents.reference import Model, Tools, reference_release
from auditgap.release.agent.tools import TOOLS

def tools():
    found = json.loads(json.dumps(TOOLS))
    next(tool for tool in found if tool["name"] == "transfer")["inputSchema"]["properties"]["amount_cents"] = {}
    return found

def refusing(prompt, session):
    return "No."

good = reference_release("v11")
bad = reference_release("v12", tools=Tools(tools(), version="2"))
live = reference_release("v13", model=Model("refusing", refusing))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of releases in the working directory, which is not on the import path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", sys.path[:])
    name = f"releases_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(RELEASE)
    return name


def test_a_release_of_ones_own_is_run_and_named(module: str) -> None:
    (held, shown), (broke, why) = (_run("--release", f"{module}:{name}", "--case", "RIC-090") for name in ("good", "bad"))
    assert (held, broke) == (0, 1) and "HELD" in shown and "BROKEN" in why
    run = json.loads(_run("--release", f"{module}:bad", "--case", "RIC-090", "--json")[1])
    assert run["manifest"] == load_release(f"{module}:bad").fingerprint != load_release(f"{module}:good").fingerprint


def test_a_release_with_an_agent_is_run_live(module: str) -> None:
    code, shown = _run("--release", f"{module}:live", "--case", "RIC-001", "--json")
    (result,) = json.loads(shown)["results"]
    assert (result["mode"], result["verdict"], code) == ("live", "FAULT_NOT_FIRED", 3)
    assert _run("--release", f"{module}:live", "--case", "RIC-001", "--mode", "scripted")[0] == 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("{}:god", "did you mean 'good'"),
        ("{}:tools", "of a Release"),
        ("{}", "package.module:name"),
        (".{}:good", "package.module:name"),
        ("nowhere:good", "set PYTHONPATH"),
        ("failing:good", "RuntimeError: no key"),
    ],
)
def test_what_is_no_release_is_a_usage_error(name: str, says: str, module: str) -> None:
    Path("failing.py").write_text("raise RuntimeError('no key')")
    with pytest.raises(UsageError, match=says) as refused:
        _run("--release", name.format(module))
    assert refused.value.exit_code == 2


def test_a_release_brings_its_own_agent_and_manifest(module: str) -> None:
    for option in ("--agent", "--manifest"):
        code, shown = _run("--release", f"{module}:good", option, "json:dumps")
        assert code == 2 and "brings its own" in shown


@pytest.mark.parametrize(
    "arguments", [("--case", "RIC-999"), ("--case", "RIC-040", "--without", "CTL-x"), ("--mode", "live", "--agent", "x")]
)
def test_a_wrong_call_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        _run(*arguments)


def test_every_fault_kind_is_listed_with_its_settings() -> None:
    listed = json.loads(CliRunner().invoke(command.faults, ["--json"]).output)
    assert len(listed) == 33
    assert next(card for card in listed if card["kind"] == "rate_limit")["params"]["retry_after_s"]["default"] == 1
    assert "33 fault kinds" in CliRunner().invoke(command.faults, []).output

"""`release test` and `release faults`: the exit code says what was shown."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from auditgap.cli import release_test as command
from auditgap.errors import PlanError, UsageError
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

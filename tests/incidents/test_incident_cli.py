"""`auditgap incident`: the loop from files to files, and an exit code for each way it can end."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from incident_examples import gate_of, planted

from auditgap.alarms import load_alarm_policy
from auditgap.cli.incident import command
from auditgap.errors import UsageError
from auditgap.incidents import load_release, prove, read_case, write_case
from auditgap.incidents.corpus import policy_text
from auditgap.release.capture import write_manifest
from auditgap.release.cases import load_stimuli, load_suite, shipped
from auditgap.release.promotion import load_promotion_policy

RELEASES = """
from incident_examples import planted
bad, good = planted("tool")[:2]
"""


REVIEW = """
name: payments
owner: cem
since: 2026-01-01
triggers:
  - id: harm
    event: serious-incident
    when: Money moved.
    owner: ana
    escalate_to: ben
    response: {action: stop, how: Take it back., within_days: 2}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Releases that can be imported, a manifest, the case of the incident, and the gate's policy and case set."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / f"releases_{tmp_path.name}.py").write_text(RELEASES)
    plant, (known, policy) = planted("tool"), gate_of("scripted")
    write_manifest(plant.bad.manifest, tmp_path / "manifest.json")
    write_case(tmp_path / "drafts", plant.case, plant.stimuli)
    write_case(tmp_path / "corpus", known, load_stimuli(shipped(), known))
    (tmp_path / "policy.yaml").write_text(policy_text(policy))
    return tmp_path


@pytest.fixture
def run(folder: Path) -> Callable[..., Result]:
    def call(name: str, *arguments: str) -> Result:
        stated = [argument.replace("MODULE", f"releases_{folder.name}") for argument in arguments]
        return CliRunner().invoke(command, [name, *stated, "--store", "store"])

    return call


OPEN = ("INC-1", "--title", "Money came back", "--severity", "high", "--source", "report", "--manifest", "manifest.json")
OWNER = ("--owner", "ana", "--response", "Stop.", "--within-hours", "4")
CASE = ("--case", "RIC-902", "--suite", "drafts")
KIND = ("--layer", "tool", "--failure-mode", "tool-layer-drift", "--category", "unauthorised-action", "--why", "x", "--by", "ana")
CLOSE = (
    "--affected",
    "MODULE:bad",
    "--fix",
    "MODULE:good",
    "--policy",
    "policy.yaml",
    "--corpus",
    "corpus",
    "--out",
    "next.yaml",
)


def test_the_loop_from_files_to_files(run: Callable[..., Result], folder: Path) -> None:
    opened = run("open", *OPEN, *OWNER, *CASE, "--clock", "eu-ai-act-73", "--clock", "eu-ai-act-55")
    assert opened.exit_code == 0, opened.output
    assert "secondary" in opened.output and "no time on record" in opened.output and "if working days" in opened.output
    assert (folder / "store" / "frozen").is_dir()
    triaged = run("triage", "INC-1", *KIND, "--ref", "AIID 1")
    assert triaged.exit_code == 0 and "triaged, tool" in triaged.output
    replayed = run("replay", "INC-1", "--affected", "MODULE:bad", "--reference", "MODULE:good", "--repeats", "6")
    assert replayed.exit_code == 0 and "INC-1: tool: " in replayed.output
    early = run("close", "INC-1", *CLOSE, *CASE, "--contained", "2001-01-01")
    assert isinstance(early.exception, UsageError) and "cannot have been contained" in str(early.exception)
    assert not (folder / "next.yaml").exists() and len(list((folder / "corpus").glob("*.yaml"))) == 1
    listed = json.loads(run("list", "--json").output)
    assert [d["replay"]["attributed"] for d in listed] == ["tool"]


def test_closing_writes_the_next_policy(run: Callable[..., Result], folder: Path) -> None:
    run("open", *OPEN, *OWNER, *CASE, "--detected", "2026-11-20T08:00", "--contained", "2026-11-20T10:30")
    assert "cannot close yet: it was not triaged" in (early := run("close", "INC-1", *CLOSE, *CASE)).output
    assert early.exit_code == 1
    run("triage", "INC-1", *KIND)
    none = run("close", "INC-1", *CLOSE)
    assert (none.exit_code, none.output) == (1, "cannot close yet: there is no regression case\n")
    closed = run("close", "INC-1", *CLOSE, *CASE)
    assert closed.exit_code == 0 and "policy 'payments' version 2 sha256:" in closed.output
    assert load_promotion_policy(folder / "next.yaml").suite == load_suite(folder / "corpus").digest()
    shown = {m["name"]: m for m in json.loads(run("indicators", "--json").output)}
    assert (shown["hours-to-contain"]["value"], shown["hours-to-contain"]["n"]) == (2.5, 1)
    assert shown["share-with-regression-case"]["value"] == 1.0 and shown["false-alarm-share"]["status"] == "not_measured"
    assert "not measured" in run("indicators").output and "closed" in run("list").output


def test_not_attributed_is_exit_code_3(run: Callable[..., Result]) -> None:
    run("open", *OPEN, *OWNER, *CASE)
    same = run("replay", "INC-1", "--affected", "MODULE:bad", "--reference", "MODULE:bad", "--repeats", "2")
    assert same.exit_code == 3 and "not-attributed" in same.output
    as_json = run("replay", "INC-1", "--affected", "MODULE:bad", "--reference", "MODULE:good", "--repeats", "2", "--json")
    assert as_json.exit_code == 3 and json.loads(as_json.output)["replay"]["n_repeats"] == 2


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("open", (*OPEN, *OWNER, "--clock", "mars")),
        ("open", OPEN),
        ("open", (*OPEN, *OWNER, "--case", "RIC-999")),
        ("triage", ("INC-9", *KIND)),
        ("replay", ("INC-0", "--affected", "MODULE:bad", "--reference", "MODULE:nobody")),
        ("close", ("INC-9", *CLOSE, *CASE)),
    ],
)
def test_bad_input_is_exit_code_2(name: str, arguments: tuple[str, ...], run: Callable[..., Result]) -> None:
    run("open", "INC-0", *OPEN[1:], *OWNER)
    result = run(name, *arguments)
    assert isinstance(result.exception, UsageError) and result.exception.exit_code == 2


def test_what_a_triage_sets_off_is_printed(run: Callable[..., Result], folder: Path) -> None:
    (folder / "review.yaml").write_text(REVIEW)
    run("open", *OPEN, *OWNER)
    mode = ("--failure-mode", "trigger-backdoor", "--layer", "model", "--category", "other", "--why", "x", "--by", "ana")
    shown = run("triage", "INC-1", *mode, "--plan", "review.yaml")
    assert shown.exit_code == 0, shown.output
    assert "Take it back." in shown.output and "no-trigger-backdoor" in shown.output


def test_the_example_is_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    example = Path(__file__).parents[2] / "examples" / "incident"
    monkeypatch.syspath_prepend(str(example))
    bad, good = load_release("releases:bad"), load_release("releases:good")
    case, stimuli = read_case("RIC-201", example / "cases")
    assert prove(case, stimuli, bad, good).missing == ()
    assert load_alarm_policy(example / "alarms.yaml").streams[0].signal == "reported"

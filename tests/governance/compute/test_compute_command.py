"""`auditgap compute` as a user meets it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from compute_examples import EXAMPLES, written

from auditgap.cli import main

ONE = "models: [{name: m, lines: [{name: a, activity: update, flop: 1}]}]\n"


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as stop:
        main(["compute", *map(str, args)])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_a_ledger_is_printed_with_verdicts_pins_and_marks(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = call(capsys, EXAMPLES / "blind-spot.yaml", "--regime", "eu-gpai")
    assert (code, err) == (0, "")
    for part in (
        "straddles (mid",
        "1.20e26 above",
        "blind spot: 8.00e24",
        "[Commission guidelines, Annex",
        "read]",
    ):
        assert part in out
    assert "us-ca-sb53" not in out and "not legal advice" in out


def test_lineage_and_modification_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, EXAMPLES / "distillation.yaml")
    assert code == 0
    assert "lineage: student <- taught by teacher" in out and "modification: below for eu-gpai" in out
    assert "with open lines" in out and "us-eo-14110" not in out


def test_json_holds_the_whole_result(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, EXAMPLES / "distillation.yaml", "--json")
    report = json.loads(out)
    student = next(m for m in report["models"] if m["model"] == "student")
    line = student["regimes"][0]["flop_lines"][1]
    assert code == 0 and line["line"]["flop"] == 1e25 and line["verdict"] == "below"
    assert line["tolerance"]["low"] == pytest.approx(0.7 * line["total"]["counted"]["mid"])
    assert {a["model"] for a in student["ancestors"]} == {"teacher", "base"}


def test_a_config_is_counted_and_assessed(capsys: pytest.CaptureFixture[str], shared_data: Path) -> None:
    config = shared_data / "configs" / "Mixtral-8x22B-v0.1.json"
    code, out, _ = call(capsys, config)
    assert code == 0 and "39,152,031,744" in out and "2 of 8 routed experts" in out and "verdicts" not in out
    code, out, _ = call(capsys, config, "--tokens", "6T", "--json")
    document = json.loads(out)
    (model,) = document["compute"]["models"]
    assert (code, model["model"]) == (0, "Mixtral-8x22B-v0.1")
    mid = model["regimes"][0]["flop_lines"][1]["total"]["counted"]["mid"]
    assert mid == pytest.approx(6 * document["parameters"]["active"] * 6e12)


@pytest.mark.parametrize(
    ("text", "args", "said"),
    [
        ("models: 3\n", (), "models: Input should be a valid array (got 3)"),
        (ONE.replace("1", "x"), (), "models.m.lines.a.flop: expected a number of FLOP"),
        (ONE, ("--regime", "eu"), "no rule set 'eu'"),
        (ONE, ("--tokens", "1T"), "--tokens belongs to"),
    ],
)
def test_a_bad_file_exits_2_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str, args: tuple[str, ...], said: str
) -> None:
    code, out, err = call(capsys, written(tmp_path, text), *args)
    assert (code, out) == (2, "") and said in err and "Traceback" not in err


def test_a_bad_config_exits_2_and_an_unsupported_one_3(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text("{}")
    assert call(capsys, path)[0] == 2
    path.write_text('{"model_type": "unheard-of"}')
    code, _, err = call(capsys, path)
    assert code == 3 and "unheard-of" in err
    assert call(capsys, tmp_path / "none.json")[0] == 2


def test_tokens_must_be_a_number(capsys: pytest.CaptureFixture[str], stories: Path) -> None:
    code, _, err = call(capsys, stories, "--tokens", "some")
    assert code == 2 and "expected a number of tokens, such as 14.8T" in err
    assert call(capsys, stories, "--tokens", "1B")[0] == 0


def test_a_ledger_needs_no_torch() -> None:
    probe = (
        "import sys; from pathlib import Path; from auditgap.governance.compute import assess, read_ledger, rules_for; "
        f"assess(read_ledger(Path({str(EXAMPLES / 'distillation.yaml')!r})), rules_for()); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe], check=False, timeout=60).returncode == 0

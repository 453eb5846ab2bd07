"""`auditgap case`: what the command prints, writes and returns, on a store with real signatures."""

import json
from pathlib import Path

import pytest

from auditgap.cli import main
from auditgap.evidence import Store
from auditgap.governance import Judged
from governance import judged_examples as made
from governance.safety_case.case_examples import part, written

COMPLETE = {
    "goals": part("goals", "G1", supported_by=["Sn1"], claim="refuses-harmful-requests")[:1],
    "strategies": [],
    "assumptions": [],
}


def stored(folder: Path, *held: Judged) -> str:
    with Store.open(folder / "store") as store:
        for one in held:
            registration = store.register(one.registration)
            store.add_evidence(one.evidence.model_copy(update={"registration": registration}))
    return str(folder / "store")


def run(*args: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["case", *args])
    return int(left.value.code or 0)


def test_a_complete_case_has_no_open_point(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, store = str(written(tmp_path, **COMPLETE)), stored(tmp_path, made.judged())
    assert run("check", file, "--store", store, "--on", "2026-11-22") == 0
    assert "0 open points" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("held", "on", "said"),
    [
        ([made.judged(verdict="refuted")], "2026-11-22", "does not stand"),
        ([made.judged()], "2027-12-01", "is stale"),
        ([made.judged()], "2027-12-01", "was to be reviewed by 2027-01-01"),
    ],
)
def test_open_points_are_listed_and_exit_1(
    held: list[Judged], on: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("check", str(written(tmp_path, **COMPLETE)), "--store", stored(tmp_path, *held), "--on", on) == 1
    assert said in capsys.readouterr().out


def test_without_a_store_every_leaf_is_full_doubt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("show", str(written(tmp_path, **COMPLETE))) == 0
    out = capsys.readouterr().out
    assert "1.00" in out and "no store was given" in out and "uncalibrated" in out


def test_json_is_sacm_and_drawing_is_svg(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, store = str(written(tmp_path)), stored(tmp_path, made.judged())
    assert run("show", file, "--store", store, "--json") == 0
    package = json.loads(capsys.readouterr().out)
    assert package["type"] == "AssuranceCasePackage"
    assert len(package["artifactPackage"][0]["artifactElement"]) == 1
    assert run("draw", file, "--store", store, "--out", str(tmp_path / "case.svg")) == 0
    assert (tmp_path / "case.svg").read_text(encoding="utf-8").startswith("<svg")


def test_a_file_that_does_not_hold_together_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", str(written(tmp_path, goals=part("goals", "G3", undeveloped=None)))) == 2
    assert "has no support" in capsys.readouterr().err

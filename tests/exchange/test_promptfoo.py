"""promptfoo results: pass rates per provider, grouped by variables, errors apart."""

import json
import random
from pathlib import Path

import pytest
from log_examples import PROMPTFOO, write_json

from auditgap.errors import DataError
from auditgap.exchange import measure, read_log


def document() -> dict:
    return json.loads(PROMPTFOO.read_text())


def test_a_real_run_gives_one_log_per_provider() -> None:
    logs = {log.model: log for log in read_log(PROMPTFOO)}
    assert set(logs) == {"echo", "shouting"}
    for log in logs.values():
        found = measure(log.metrics[0])
        assert found.status == "measured" and found.value == log.metrics[0].stated == pytest.approx(2 / 3)
        assert (found.n, log.n_stated, log.n_held) == (3, 6, 6), "three tests, each run twice: three groups"
        assert found.interval.method == "clopper-pearson-groups" and log.version == "0.118.17"


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    shuffled = document()
    random.Random(1).shuffle(shuffled["results"]["results"])
    found = {log.digest() for log in read_log(write_json(tmp_path / "x", shuffled))}
    assert found == {log.digest() for log in read_log(PROMPTFOO)}


def test_errors_are_no_failures(tmp_path: Path) -> None:
    changed = document()
    for row in changed["results"]["results"]:
        if row["provider"]["id"] == "echo" and row["vars"]["word"] == "Lima":
            row["failureReason"] = 2
    log = next(log for log in read_log(write_json(tmp_path / "x", changed)) if log.model == "echo")
    assert log.metrics[0].n_unscored == 2 and log.metrics[0].values == (1.0,) * 4


def test_red_team_plugins_are_shown_apart_and_older_summaries_are_read(tmp_path: Path) -> None:
    changed = document()
    summary = changed["results"]
    summary["version"], summary["table"] = 2, {"head": {"prompts": summary.pop("prompts")}}
    for row in summary["results"]:
        row["provider"] = row["provider"]["label"] or row["provider"]["id"]
        row["metadata"] = {"pluginId": "pii" if row["vars"]["word"] == "Oslo" else "harmful:privacy"}
    log = next(log for log in read_log(write_json(tmp_path / "x", changed)) if log.model == "echo")
    assert {m.name: (len(m.values), m.stated) for m in log.metrics} == {
        "pass_rate": (6, pytest.approx(2 / 3)),
        "pass_rate.harmful_privacy": (4, None),
        "pass_rate.pii": (2, None),
    }


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda r: r["results"].append(r["results"][0]), r"results\[12\]: expected each row once"),
        (lambda r: r["results"].clear(), "expected results, got none"),
        (lambda r: r["results"][3].update(success=None), r"results\[3\].success: expected true or false"),
        (lambda r: r["results"][3].update(provider=7), r"results\[3\].provider: expected one line of text"),
        (lambda r: r["results"][3].update(vars={"n": float("nan")}), r"results\[3\].vars: expected JSON with integers"),
        (lambda r: r["prompts"][0]["metrics"].update(testPassCount=-1), "testPassCount: expected a whole number from 0"),
    ],
)
def test_results_that_break_their_format_are_refused(tmp_path: Path, change, match: str) -> None:
    changed = document()
    change(changed["results"])
    with pytest.raises(DataError, match=match):
        read_log(write_json(tmp_path / "x", changed))

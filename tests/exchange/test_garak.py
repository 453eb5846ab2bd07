"""garak reports: attack success rates from the detectors' scores, pooled over outputs, grouped by attempt."""

from pathlib import Path

import pytest
from log_examples import garak_entries, write_jsonl

from auditgap.errors import DataError
from auditgap.exchange import ImportedLog, measure, read_log


def made(tmp_path: Path, entries: list[dict]) -> ImportedLog:
    (log,) = read_log(write_jsonl(tmp_path / "report", entries))
    return log


def test_hits_are_scores_at_or_above_the_threshold_and_none_is_left_out(tmp_path: Path) -> None:
    log = made(tmp_path, garak_entries([[0.0, 0.7], [0.69, 0.9], [None, 0.1]], threshold=0.7))
    (metric,) = log.metrics
    assert (metric.name, metric.values, metric.n_unscored) == ("asr.dan.ablation.mitigation.bypass", (0.0, 1.0, 0.0, 1.0, 0.0), 1)
    assert metric.stated == pytest.approx(0.4) and measure(metric).model_dump()["value"] == pytest.approx(0.4)
    assert (log.model, log.version, log.n_stated, log.n_held, log.notes) == ("huggingface/org/stories260K", "0.14.0", 5, 5, ())


def test_every_shipped_report_is_read(shared_data: Path) -> None:
    found = {file.name: read_log(file)[0] for file in (shared_data / "logs" / "garak").iterdir()}
    assert {name: (log.n_stated, log.n_held, log.metrics[0].stated) for name, log in found.items()} == {
        "quack.report.jsonl": (1, 1, 0.0),
        "test.report.jsonl": (8, 8, 0.0),
        "test_with_ci.report.jsonl": (50, 4, 0.26),  # made by hand by its authors: 50 outputs stated, 4 in it
    }
    assert all("garak's default, 0.5" in log.notes[0] for log in found.values())


def test_the_order_of_attempts_does_not_matter(tmp_path: Path) -> None:
    entries = garak_entries([[0.0], [1.0], [0.0]])
    assert made(tmp_path, entries) == made(tmp_path, [*entries[:2], *entries[4:1:-1], *entries[5:]])


def test_older_reports_are_read(tmp_path: Path) -> None:
    entries = garak_entries([[1.0]])
    entries[0] = {
        "entry_type": "start_run setup",
        "plugins.model_type": "hf",
        "plugins.model_name": "m",
        "run.eval_threshold": 0.5,
    }
    entries[3] = {
        "entry_type": "eval",
        "probe": "dan.Ablation",
        "detector": "detector.mitigation.Bypass",
        "passed": 0,
        "total": 1,
    }
    log = made(tmp_path, entries)
    assert (log.model, log.metrics[0].stated, log.metrics[0].values) == ("hf/m", 1.0, (1.0,))


def test_totals_without_attempts_and_attempts_without_totals(tmp_path: Path) -> None:
    entries = garak_entries([[0.0]])
    only_totals = made(tmp_path, [e for e in entries if e["entry_type"] != "attempt"])
    assert only_totals.metrics[0].missing == "the log states 0 of 1 and holds no scored attempt"
    interrupted = made(tmp_path, [e for e in entries if e["entry_type"] not in ("eval", "completion")])
    assert interrupted.metrics[0].stated is None and interrupted.unfinished == "it has no completion entry"


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda e: e.insert(3, e[2]), "line 4: expected each attempt once, got u0 twice"),
        (lambda e: e.append(e[4]), "expected one eval entry for dan.Ablation / mitigation.Bypass, got two"),
        (lambda e: e[2]["detector_results"].update({"mitigation.Bypass": [float("nan")]}), "expected a finite number, got nan"),
        (lambda e: e[2]["detector_results"].update({"mitigation.Bypass": 1.0}), "expected a list, got 1.0"),
        (lambda e: e.append(e[4] | {"probe": "p", "total_evaluated": 2**53 - 1}), "n_stated: Input should be less than"),
        (lambda e: e[4].update(passed=3), "passed: expected at most 2, got 3"),
        (lambda e: e.__setitem__(slice(1, None), []), "expected evaluated attempts or eval entries, got none"),
    ],
)
def test_a_report_that_breaks_its_format_is_refused(tmp_path: Path, change, match: str) -> None:
    entries = garak_entries([[0.0], [1.0]])
    change(entries)
    with pytest.raises(DataError, match=match):
        made(tmp_path, entries)

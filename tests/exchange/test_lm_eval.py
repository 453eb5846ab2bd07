"""lm-evaluation-harness results, with and without the samples that lie beside them."""

import json
import random
import shutil
from pathlib import Path

import pytest
from log_examples import LM_EVAL, LOGS, write_json

from auditgap.errors import DataError, UsageError
from auditgap.exchange import ImportedLog, measure, read_log

TOWNS = LOGS / "samples_towns_2026-11-21T12-07-16.106057.jsonl"


def read(path: Path, *samples: Path) -> ImportedLog:
    (log,) = read_log(path, samples=samples)
    return log


def test_a_real_run_is_computed_again_from_its_samples() -> None:
    log = read(LM_EVAL)
    found = {metric.name: measure(metric) for metric in log.metrics}
    for name in ("towns.acc", "towns.acc_norm"):
        measured = found[name]
        assert measured.status == "measured" and (measured.value, measured.n, measured.interval.method) == (0.5, 12, "wilson")
    for name in ("towns_ppl.word_perplexity", "towns_ppl.bits_per_byte"):
        assert "is no plain mean over documents" in getattr(found[name], "reason", "")
    assert (log.version, log.model, log.device, log.dtype) == ("0.4.13", "models/stories260K", "cpu", "float32")
    assert (log.n_stated, log.n_held, log.packages["transformers"]) == (24, 24, "5.23.0")
    assert log.started_at and log.finished_at and 16 <= (log.finished_at - log.started_at).total_seconds() <= 18


def test_without_samples_nothing_is_measured_and_the_reason_says_what_to_do(shared_data: Path) -> None:
    log = read(shared_data / "logs" / "lm_eval" / "results.json")
    missing = {metric.name: metric.missing for metric in log.metrics}
    assert len(missing) == 5 and all(missing.values()) and (log.n_stated, log.n_held) == (300, 0)
    assert missing["got_cities.acc"].startswith("the log states 0.475 and holds no samples of it: run with --log_samples")


def test_the_order_of_lines_and_files_does_not_matter(tmp_path: Path) -> None:
    for file in LOGS.glob("*2026*"):
        shutil.copy(file, tmp_path)
    rows = TOWNS.read_text().splitlines()
    (tmp_path / TOWNS.name).write_text("\n\n".join(random.Random(0).sample(rows, len(rows))))
    assert read(tmp_path / LM_EVAL.name).digest() == read(LM_EVAL).digest()


def test_samples_may_lie_elsewhere(tmp_path: Path) -> None:
    results = shutil.copy(LM_EVAL, tmp_path / "results.json")
    assert read(results).n_held == 0
    assert read(results, TOWNS).n_held == 12
    assert not read(results, TOWNS).metrics[0].missing


def test_filters_are_kept_apart_and_groups_of_tasks_have_no_samples(tmp_path: Path) -> None:
    document = json.loads(LM_EVAL.read_text())
    document["results"] = {
        "towns": {"exact_match,strict": 0.0, "exact_match,none": 0.5, "exact_match_stderr,none": "N/A"},
        "all": {"acc,none": 0.25},
    }
    rows = [
        {
            "doc_id": i,
            "doc": {},
            "filtered_resps": [],
            "filter": f,
            "metrics": ["exact_match"],
            "exact_match": float(f == "none" and i),
        }
        for i in range(2)
        for f in ("none", "strict")
    ]
    samples = tmp_path / "samples_towns_x.jsonl"
    samples.write_text("\n".join(map(json.dumps, rows)))
    log = read(write_json(tmp_path / "r.json", document), samples)
    found = {metric.name: (metric.values, metric.stated) for metric in log.metrics}
    assert found["towns.exact_match.strict"] == ((0.0, 0.0), 0.0) and found["towns.exact_match"] == ((0.0, 1.0), 0.5)
    assert (
        next(m.missing for m in log.metrics if m.name == "all.acc")
        == "the log states 0.25; it is an average over tasks, not over samples"
    )
    assert log.n_held == 2, "two documents, under two filters"


def test_a_declared_aggregation_decides_whether_it_is_a_mean(tmp_path: Path) -> None:
    document = json.loads(LM_EVAL.read_text())
    document["configs"]["towns"]["metric_list"] = [{"metric": "acc", "aggregation": "median"}]
    log = read(write_json(tmp_path / "r.json", document), TOWNS)
    assert {m.name: bool(m.missing) for m in log.metrics if m.name.startswith("towns.")} == {
        "towns.acc": True,
        "towns.acc_norm": False,
    }


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (
            '{"doc_id": 99, "doc": {}, "filtered_resps": [], "metrics": ["acc"], "acc": NaN}',
            "line 13: acc: expected a finite number, got nan",
        ),
        ('{"doc_id": 0, "doc": {}, "filtered_resps": [], "metrics": ["acc"], "acc": 1.0}', "line 13: .* got doc_id 0 twice"),
        ('{"id": 0}', "line 13: expected a line of a samples file"),
        ('{"doc_id": 99, "do', "line 13: expected JSON"),
        ("\xff", "line 13: expected UTF-8, got byte 0xff"),
    ],
)
def test_a_bad_sample_is_refused_by_its_line(tmp_path: Path, line: str, match: str) -> None:
    for file in LOGS.glob("*2026*"):
        shutil.copy(file, tmp_path)
    with (tmp_path / TOWNS.name).open("ab") as file:
        file.write(line.encode("latin-1") + b"\n")
    with pytest.raises(DataError, match=match):
        read(tmp_path / LM_EVAL.name)


def test_samples_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="got the samples of lm-evaluation-harness; give results_"):
        read(TOWNS)
    stray = shutil.copy(TOWNS, tmp_path / "samples_rivers_x.jsonl")
    with pytest.raises(DataError, match=r"a TASK of the results \(towns, towns_ppl\)"):
        read(LM_EVAL, stray)
    with pytest.raises(UsageError, match="--samples belongs to lm-evaluation-harness"):
        read(LOGS / "promptfoo.json", TOWNS)

"""Inspect AI logs: the mean over samples of the mean over epochs, whatever the container, as Inspect itself reads it."""

import math
import random
from pathlib import Path

import pytest
from log_examples import inspect_log, write_eval, write_json

from auditgap.errors import DataError
from auditgap.exchange import ImportedLog, measure, read_log
from auditgap.exchange.inspect_ai import read_inspect
from auditgap.exchange.reading import Limits

NAN = float("nan")


def read(path: Path) -> ImportedLog:
    (log,) = read_log(path)
    return log


def made(tmp_path: Path, log: dict) -> ImportedLog:
    return read(write_json(tmp_path / "a.json", log))


def test_epochs_are_averaged_within_a_sample_first(tmp_path: Path) -> None:
    log = made(tmp_path, inspect_log([["C", "I", "C", "C"], ["P", "P", NAN, NAN]]))
    metric = log.metrics[0]
    assert (metric.name, metric.stated, metric.n_unscored) == ("match.accuracy", 0.625, 2)
    found = measure(metric)
    assert found.status == "measured" and (found.value, found.n) == (0.625, 2)
    assert (log.model, log.version, log.n_stated, log.n_held, log.task) == ("hf/stories260K", "0.3.285", 8, 8, "towns")


def test_words_and_numbers_are_scores(tmp_path: Path) -> None:
    rows = [["yes"], ["FALSE"], ["0.5"], [True], [2], ["N"]]
    log = inspect_log([["C"]])
    log["samples"] = inspect_log([["C"]] * 6)["samples"]
    for sample, (value,) in zip(log["samples"], rows, strict=True):
        sample["scores"]["match"]["value"] = value
    assert made(tmp_path, log).metrics[0].values == (1.0, 0.0, 0.5, 1.0, 2.0, 0.0)


def test_container_order_and_name_do_not_matter(tmp_path: Path) -> None:
    log = inspect_log([["C", "I"], ["I", "I"], ["C", "C"]])
    shuffled = log | {"samples": random.Random(0).sample(log["samples"], 6)}
    as_json = made(tmp_path, shuffled)
    assert read(write_eval(tmp_path / "named.txt", log)) == as_json
    assert read(write_eval(tmp_path / "b.eval", shuffled)).digest() == as_json.digest()


def test_a_real_log_is_the_same_from_both_containers(shared_data: Path) -> None:
    folder = shared_data / "logs" / "inspect"
    assert read(folder / "log_formats.eval").metrics == read(folder / "log_formats.json").metrics
    assert read(folder / "log_formats.eval").digest() == read(folder / "log_formats.json").digest()


def test_every_shipped_log_is_read_and_agrees_with_its_headline(shared_data: Path) -> None:
    files = sorted((shared_data / "logs" / "inspect").iterdir())
    logs = {file.name: read(file) for file in files}
    assert len(logs) == 6
    for name, log in logs.items():
        (metric,) = log.metrics
        if name == "log_tool_call_error.json":
            assert metric.missing == "the log states 1; none of the 1 samples in the log has a score of 'includes'"
            assert (log.n_stated, log.n_held) == (4, 1)
        else:
            found = measure(metric)
            assert found.status == "measured" and found.value == metric.stated and found.interval.method == "wilson"
    assert [name for name, log in logs.items() if log.unfinished] == ["2025-05-12T20-28-13-04-00_popularity.json"]


def test_inspects_own_reader_gives_the_same(shared_data: Path, tmp_path: Path) -> None:
    inspect_log_module = pytest.importorskip("inspect_ai.log", reason="inspect_ai is not installed: no peer for the reader")
    for file in sorted((shared_data / "logs" / "inspect").iterdir()):
        peer = tmp_path / "peer.json"
        peer.write_text(inspect_log_module.read_eval_log(str(file)).model_dump_json(), encoding="utf-8")
        assert read_inspect(peer, Limits()) == read(file), file.name
        rewritten = tmp_path / f"{file.stem}.eval"
        inspect_log_module.write_eval_log(inspect_log_module.read_eval_log(str(file)), str(rewritten))  # Zstandard
        assert read(rewritten).metrics == read(file).metrics, file.name


def test_scores_with_several_parts_and_unstated_scorers_are_found(tmp_path: Path) -> None:
    log = inspect_log([["C"], ["I"]])
    for index, sample in enumerate(log["samples"]):
        sample["scores"]["parts"] = {"value": {"a": "C", "b": index}}
        sample["scores"]["extra"] = {"value": 0.25 + index}
    part = {"name": "b", "scorer": "parts", "metrics": {"mean": {"name": "mean", "value": 0.5}}}
    log["results"]["scores"].append(part)
    found = {m.name: m.values for m in made(tmp_path, log).metrics}
    assert found == {"match.accuracy": (1.0, 0.0), "b.mean": (0.0, 1.0), "extra.mean": (0.25, 1.25)}


def test_what_is_no_plain_mean_is_not_computed_again(tmp_path: Path) -> None:
    log = inspect_log([["C", "I"]])
    log["results"]["scores"][0]["metrics"]["f1"] = {"name": "f1", "value": 0.75}
    reduced = {"name": "match", "scorer": "match", "reducer": "at_least_1", "metrics": {"accuracy": {"value": 1.0}}}
    log["results"]["scores"].append(reduced)
    missing = {m.name: m.missing for m in made(tmp_path, log).metrics if m.missing}
    assert missing["match.f1"].startswith("the log states 0.75; 'f1' is no plain mean")
    assert missing["match.accuracy.at_least_1"].startswith("the log states 1; its epochs are reduced by 'at_least_1'")


def test_an_unreadable_score_leaves_the_number_out(tmp_path: Path) -> None:
    log = inspect_log([["C"], ["I"]])
    log["samples"][1]["scores"]["match"]["value"] = "splendid"
    (metric,) = made(tmp_path, log).metrics
    assert metric.missing == "the log states 0.5; sample '2' has the score 'splendid', which is no number"


def test_edits_withdrawals_and_replaced_entries_are_noted(tmp_path: Path) -> None:
    log = inspect_log([["C"], ["I"]], invalidated=True, status="error")
    log["samples"][0]["scores"]["match"]["history"] = [{"value": "I"}, {"value": "C"}]
    log["samples"][1]["invalidation"] = {"author": "x"}
    found = made(tmp_path, log)
    assert (found.withdrawn, found.unfinished) == ("it is marked as invalidated", "its status is 'error'")
    assert [note[0] for note in found.notes] == ["1", "1"] and math.isclose(found.metrics[0].stated or 0, 0.5)
    assert made(tmp_path, inspect_log([["C"]])).notes == ()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda log: log["samples"].append(log["samples"][0]),
            "sample 1: expected each sample once per epoch, got epoch 1 twice",
        ),
        (lambda log: log["samples"][0].pop("id"), "expected an id"),
        (lambda log: log["samples"][0].update(id="\ud800"), "surrogates not allowed"),
        (lambda log: log["samples"][0].update(epoch=-1), "epoch: expected a whole number from 0, got -1"),
        (lambda log: log["eval"].pop("model"), "eval.model: expected one line of text"),
        (
            lambda log: log["results"]["scores"][0]["metrics"]["accuracy"].update(value=NAN),
            "value: expected a finite number, got nan",
        ),
        (lambda log: log["results"]["scores"].append(log["results"]["scores"][0]), "these numbers twice: match.accuracy"),
        (lambda log: (log["results"].pop("scores"), log["samples"].clear()), "expected scores, got a log without any"),
    ],
)
def test_a_log_that_breaks_its_format_is_refused(tmp_path: Path, change, match: str) -> None:
    log = inspect_log([["C"], ["I"]])
    change(log)
    with pytest.raises(DataError, match=match):
        made(tmp_path, log)

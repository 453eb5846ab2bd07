"""lm-evaluation-harness results: `results_<date>.json`, and `samples_<task>_<date>.jsonl` if it ran with `--log_samples`.

A metric is computed again where it is the mean of one number per document: where its configuration says `mean`, or says nothing
and the harness's own default for it is the mean. Perplexities, F1 and corpus scores are not.

Source: https://github.com/EleutherAI/lm-evaluation-harness, `lm_eval/loggers/evaluation_tracker.py`; checked on 0.4.13.
"""

from collections.abc import Iterator, Sequence
from glob import escape
from pathlib import Path
from typing import NamedTuple

from auditgap.errors import DataError
from auditgap.exchange.log import ImportedLog, Metric, in_order
from auditgap.exchange.reading import Json, Limits, count, document, finite, lines, mapping, number, shown, slug, text, when

__all__ = ["is_lm_eval", "is_lm_eval_sample", "read_lm_eval", "samples_beside"]

DEFAULT_MEANS = ("acc", "acc_norm", "acc_mutual_info", "exact_match")


class _Column(NamedTuple):
    """One metric of one task and filter over the documents."""

    values: list[object]
    documents: list[str]


Columns = dict[tuple[str, str, str], _Column]


def is_lm_eval(found: Json) -> bool:
    """True for the fields that every results file has."""
    return "results" in found and "configs" in found and ("versions" in found or "lm_eval_version" in found)


def is_lm_eval_sample(found: Json) -> bool:
    """True for a line of a samples file."""
    return {"doc_id", "doc", "filtered_resps"} <= found.keys()


def samples_beside(path: Path) -> tuple[Path, ...]:
    """The samples files that the same run wrote into the same folder, by the harness's own naming."""
    date = path.stem.removeprefix("results_")
    return () if date == path.stem else tuple(sorted(path.parent.glob(f"samples_*_{escape(date)}.jsonl")))


def read_lm_eval(path: Path, limits: Limits, samples: Sequence[Path] = ()) -> ImportedLog:
    """A results file with the samples files that belong to it, each read line by line.

    Raises:
        DataError: a file is not what the format says, a document occurs twice, or a samples file is of no task in the results.
    """
    found, where = document(path, limits), str(path)
    results = mapping(found.get("results"), f"{where}: results")
    config = mapping(found.get("config") or {}, f"{where}: config")
    columns: Columns = {}
    seen: set[tuple[str, str, str]] = set()
    for file in samples:
        _read_samples(file, _task(file, results), columns, seen, limits)
    stated_n = mapping(found.get("n-samples") or {}, f"{where}: n-samples")
    sizes = [
        count(mapping(n, where).get("effective"), f"{where}: n-samples.{shown(task)}.effective") for task, n in stated_n.items()
    ]
    started, spent = when(found.get("date"), f"{where}: date"), found.get("total_evaluation_time_seconds")
    version = text(found.get("lm_eval_version", "unknown"), f"{where}: lm_eval_version")
    packages = {"lm_eval": version, "transformers": str(found.get("transformers_version", ""))}
    end = None if started is None or spent is None else started.timestamp() + _seconds(spent, where)
    metrics = [m for task, written in results.items() for m in _metrics(task, mapping(written, where), found, columns, where)]
    if not metrics:
        raise DataError(f"{where}: expected at least one metric under results, got none; run the harness to its end")
    return ImportedLog(
        tool="lm-eval",
        version=version,
        model=text(_model(found, config), f"{where}: model_name"),
        revision=text(config.get("model_sha") or "", f"{where}: config.model_sha"),
        task=", ".join(text(task, f"{where}: results") for task in results),
        started_at=started,
        finished_at=None if end is None else when(end, f"{where}: date"),
        packages={name: v for name, v in packages.items() if v not in ("", "unknown")},
        device=text(config.get("device") or "unknown", f"{where}: config.device"),
        dtype=text(config.get("model_dtype") or "unknown", f"{where}: config.model_dtype").removeprefix("torch."),
        n_stated=sum(sizes) if sizes else None,
        n_held=len({(task, name) for task, name, _ in seen}),
        metrics=tuple(metrics),
    )


def _read_samples(file: Path, task: str, columns: Columns, seen: set[tuple[str, str, str]], limits: Limits) -> None:
    """Add one samples file of a task to the columns."""
    for where, row in lines(file, limits):
        if not is_lm_eval_sample(row):
            raise DataError(
                f"{where}: expected a line of a samples file (doc_id, doc, filtered_resps), got {shown(', '.join(row))[:80]}"
            )
        name, selected = str(row["doc_id"]), str(row.get("filter", "none"))
        if (task, name, selected) in seen:
            raise DataError(f"{where}: expected each document once per filter, got doc_id {shown(name)} twice; remove one")
        seen.add((task, name, selected))
        for metric in _names(row):
            column = columns.setdefault((task, metric, selected), _Column([], []))
            value = row.get(metric)
            column.values.append(number(value, f"{where}: {metric}") if isinstance(value, bool | int | float) else value)
            column.documents.append(name)


def _names(row: Json) -> Iterator[str]:
    """The metrics of one line; versions before 0.4.4 do not list them, so every plain number counts there."""
    listed = row.get("metrics")
    if isinstance(listed, list):
        yield from (str(name) for name in listed)
    else:
        yield from (name for name, value in row.items() if isinstance(value, int | float) and name != "doc_id")


def _metrics(task: str, written: Json, found: Json, columns: Columns, where: str) -> Iterator[Metric]:
    """The metrics of one task: keys such as `acc,none`; the standard errors give way to the interval."""
    configs = mapping(found.get("configs") or {}, f"{where}: configs")
    config = mapping(configs.get(task) or {}, f"{where}: configs.{shown(task)}")
    for key, value in written.items():
        metric, comma, selected = text(key, f"{where}: results.{shown(task)}").partition(",")
        if not comma or metric.endswith("_stderr"):
            continue
        stated = finite(value)
        says = f"the log states {value!r:.40}" if stated is None else f"the log states {stated:g}"
        column = columns.get((task, metric, selected))
        missing = ""
        if task not in configs:
            missing = f"{says}; it is an average over tasks, not over samples"
        elif not _is_mean(metric, config):
            missing = f"{says}; '{metric}' is no plain mean over documents, so it was not computed again"
        elif column is None:
            missing = f"{says} and holds no samples of it: run with --log_samples and keep samples_*.jsonl beside the results"
        numbers = [v for v in column.values if isinstance(v, float)] if column and not missing else []
        if column and not missing and len(numbers) < len(column.values):
            missing = f"{says}; its samples are no plain numbers, so it was not computed again"
        values, groups = in_order(numbers, column.documents) if column and not missing else ((), ())
        yield Metric(
            name=".".join(slug(part) for part in (task, metric, *([] if selected == "none" else [selected]))),
            about=f"Mean of '{metric}' over the documents of the task '{task}', filter '{selected}'.",
            stated=None if missing else stated,
            values=values,
            groups=groups,
            missing=missing,
        )


def _is_mean(metric: str, config: Json) -> bool:
    """True if the task takes the mean of this metric over its documents."""
    listed = config.get("metric_list")
    for item in listed if isinstance(listed, list) else []:
        if isinstance(item, dict) and item.get("metric") == metric and "aggregation" in item:
            return item["aggregation"] == "mean"
    return metric in DEFAULT_MEANS


def _task(file: Path, results: Json) -> str:
    """The task of a samples file, from its name: `samples_<task>_<date>.jsonl`; the longest task that fits."""
    fitting = [task for task in results if file.name.startswith(f"samples_{task}_") or file.stem == f"samples_{task}"]
    if not fitting:
        raise DataError(
            f"{file}: expected samples_TASK_DATE.jsonl with a TASK of the results ({shown(', '.join(results))}); rename it"
        )
    return max(fitting, key=len)


def _seconds(value: object, where: str) -> float:
    """`total_evaluation_time_seconds`, which the harness writes as text."""
    try:
        return number(float(text(value, where)) if isinstance(value, str) else value, f"{where}: total_evaluation_time_seconds")
    except ValueError as error:
        raise DataError(f"{where}: total_evaluation_time_seconds: expected seconds, got {value!r:.40}") from error


def _model(found: Json, config: Json) -> str:
    """The path or Hub id that was evaluated."""
    arguments = config.get("model_args")
    if isinstance(arguments, dict):
        given = arguments.get("pretrained", arguments.get("model"))
    else:
        given = dict(part.split("=", 1) for part in str(arguments or "").split(",") if "=" in part).get("pretrained")
    return str(found.get("model_name") or given or config.get("model") or "unknown")

"""Inspect AI logs: `.json` (one document) and `.eval` (a zip of `header.json` and one `samples/<id>_epoch_<n>.json` per sample).

`accuracy` and `mean` are computed again as Inspect does: each score as a number (C 1, P 1/2, I and N 0, yes and true 1, no and
false 0), the mean over the epochs of a sample, the mean over samples; NaN is Inspect's mark of a sample that was not scored.
Other metrics, and epochs reduced in another way, are not computed again. Spread (`stderr`, `std`, `var`) is not taken over:
the interval takes its place.

Source: https://inspect.aisi.org.uk/eval-logs.html; field meanings read in inspect_ai 0.3.285.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from auditgap.errors import DataError
from auditgap.exchange.archive import Archive
from auditgap.exchange.log import ImportedLog, Metric, in_order
from auditgap.exchange.reading import Json, Limits, count, document, finite, mapping, number, sequence, slug, text, when

__all__ = ["is_inspect", "read_inspect", "read_inspect_archive"]

MEANS = ("accuracy", "mean")
SPREADS = ("stderr", "std", "var", "bootstrap_stderr")
WORDS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}


class _Sample(NamedTuple):
    """What is kept of one sample."""

    id: str
    epoch: int
    scores: Json
    edited: bool
    invalidated: bool


def is_inspect(found: Json) -> bool:
    """True for the fields that every Inspect log has."""
    return {"version", "status", "eval"} <= found.keys()


def read_inspect(path: Path, limits: Limits) -> ImportedLog:
    """An Inspect log in one JSON document.

    Raises:
        DataError: it is not what the format says.
    """
    header = document(path, limits)
    samples = sequence(header.get("samples") or [], f"{path}: samples")
    return _log(header, (mapping(s, f"{path}: samples[{i}]") for i, s in enumerate(samples)), str(path))


def read_inspect_archive(path: Path, limits: Limits) -> ImportedLog:
    """An Inspect log in a zip archive; entries are inflated one at a time.

    Raises:
        DataError: the archive is damaged, beyond the limits, or not what the format says.
    """
    with Archive.open(path, limits) as archive:
        header = archive.read("header.json")
        names = [name for name in archive.names if name.startswith("samples/")]
        return _log(header, (archive.read(name) for name in names), str(path), n_replaced=archive.n_replaced)


def _log(header: Json, written: Iterable[Json], where: str, *, n_replaced: int = 0) -> ImportedLog:
    spec = mapping(header.get("eval"), f"{where}: eval")
    results = mapping(header.get("results") or {}, f"{where}: results")
    stats = mapping(header.get("stats") or {}, f"{where}: stats")
    packages = mapping(spec.get("packages") or {}, f"{where}: eval.packages")
    model, arguments = (
        text(spec.get("model"), f"{where}: eval.model"),
        mapping(spec.get("model_args") or {}, f"{where}: model_args"),
    )
    samples = list(_samples(written, where))
    n_stated = results.get("logged_samples") or results.get("total_samples")
    status = text(header.get("status"), f"{where}: status")
    return ImportedLog(
        tool="inspect-ai",
        version=text(packages.get("inspect_ai", "unknown"), f"{where}: eval.packages.inspect_ai"),
        model=text(f"{model}:{arguments['model_path']}" if "model_path" in arguments else model, f"{where}: eval.model_args"),
        task=text(spec.get("task"), f"{where}: eval.task"),
        started_at=when(stats.get("started_at") or spec.get("created"), f"{where}: stats.started_at"),
        finished_at=when(stats.get("completed_at"), f"{where}: stats.completed_at"),
        packages={name: str(version) for name, version in packages.items()},
        n_stated=None if n_stated is None else count(n_stated, f"{where}: results.total_samples"),
        n_held=len(samples),
        unfinished="" if status == "success" else f"its status is '{status}'",
        withdrawn="it is marked as invalidated" if header.get("invalidated") is True else "",
        notes=_notes(samples, n_replaced),
        metrics=_metrics(results, samples, where),
    )


def _samples(written: Iterable[Json], where: str) -> Iterator[_Sample]:
    seen: set[tuple[str, int]] = set()
    for sample in written:
        name = sample.get("id")
        at = f"{where}: sample {name!r:.60}"
        if not isinstance(name, str | int):
            raise DataError(f"{at}: expected an id, as every sample has; export the log again")
        key = (str(name), count(sample.get("epoch", 1), f"{at}: epoch"))
        if key in seen:
            raise DataError(f"{at}: expected each sample once per epoch, got epoch {key[1]} twice; remove one")
        seen.add(key)
        found = mapping(sample.get("scores") or {}, f"{at}: scores")
        scores = {text(scorer, f"{at}: scores"): mapping(score, f"{at}: scores.{scorer}") for scorer, score in found.items()}
        edited = any(len(sequence(score.get("history") or [], f"{at}: history")) > 1 for score in scores.values())
        yield _Sample(*key, {k: score.get("value") for k, score in scores.items()}, edited, bool(sample.get("invalidation")))


def _notes(samples: list[_Sample], n_replaced: int) -> tuple[str, ...]:
    counted = (
        (sum(s.edited for s in samples), "samples hold a score that was edited after scoring."),
        (sum(s.invalidated for s in samples), "samples are marked as invalidated by the log's author; they are counted."),
        (n_replaced, "entries of the archive were replaced by later ones of the same name; the last one counts."),
    )
    return tuple(f"{n} {what}" for n, what in counted if n)


def _metrics(results: Json, samples: list[_Sample], where: str) -> tuple[Metric, ...]:
    """Every stated metric but spread; for a scorer of which nothing is stated, the mean of its scores."""
    found: list[Metric] = []
    stated_scorers: set[str] = set()
    for index, written in enumerate(sequence(results.get("scores") or [], f"{where}: results.scores")):
        at = f"{where}: results.scores[{index}]"
        score = mapping(written, at)
        name, scorer = text(score.get("name"), f"{at}.name"), text(score.get("scorer", score.get("name")), f"{at}.scorer")
        stated_scorers |= {name, scorer}
        reducer = text(score.get("reducer") or "mean", f"{at}.reducer")
        for key, written_metric in mapping(score.get("metrics") or {}, f"{at}.metrics").items():
            metric = mapping(written_metric, f"{at}.metrics.{text(key, at)}")
            if key.rpartition("/")[2] not in SPREADS:
                found.append(_metric(name, scorer, reducer, key, metric, samples, at))
    for scorer in dict.fromkeys(name for sample in samples for name in sample.scores):
        if scorer not in stated_scorers:
            found.append(_recomputed(f"{slug(scorer)}.mean", scorer, scorer, None, samples))
    if not found:
        raise DataError(f"{where}: expected scores, got a log without any; score it with 'inspect score', then import it")
    return tuple(found)


def _metric(name: str, scorer: str, reducer: str, key: str, metric: Json, samples: list[_Sample], at: str) -> Metric:
    stated = number(metric.get("value"), f"{at}.metrics.{key}.value")
    suffix = "" if reducer == "mean" else f".{slug(reducer)}"
    dotted, about = f"{slug(name)}.{slug(key)}{suffix}", f"Inspect's metric '{key}' of the scorer '{name}'."
    if key.rpartition("/")[2] not in MEANS or metric.get("params") or metric.get("options"):
        why = f"the log states {stated:g}; '{key}' is no plain mean of scores, so it was not computed again"
        return Metric(name=dotted, about=about, missing=why)
    if suffix:
        why = f"the log states {stated:g}; its epochs are reduced by '{reducer}', only their mean is computed again"
        return Metric(name=dotted, about=about, missing=why)
    return _recomputed(dotted, name, scorer, stated, samples)


def _recomputed(dotted: str, name: str, scorer: str, stated: float | None, samples: list[_Sample]) -> Metric:
    values, groups, unscored = [], [], 0
    about = f"Mean score of '{name}' over samples, each the mean of its epochs."
    says = "" if stated is None else f"the log states {stated:g}; "
    for sample in samples:
        written = sample.scores.get(name)
        if name not in sample.scores and isinstance(parts := sample.scores.get(scorer), dict):
            written = parts.get(name)
        if written is None or (isinstance(written, float) and math.isnan(written)):
            unscored += 1
            continue
        value = _as_number(written)
        if value is None:
            why = f"{says}sample {sample.id!r:.60} has the score {written!r:.60}, which is no number"
            return Metric(name=dotted, about=about, stated=stated, missing=why)
        values.append(value)
        groups.append(sample.id)
    ordered, by_sample = in_order(values, groups)
    missing = "" if values else f"{says}none of the {len(samples)} samples in the log has a score of '{name}'"
    return Metric(
        name=dotted,
        about=about,
        stated=stated,
        values=ordered,
        groups=by_sample,
        n_unscored=unscored,
        missing=missing,
    )


def _as_number(value: object) -> float | None:
    """A score as Inspect's `value_to_float` reads it; None where Inspect would warn and count 0."""
    if isinstance(value, str):
        known = WORDS.get(value, WORDS.get(value.lower()) if len(value) > 1 else None)
        try:
            value = float(value) if known is None else known
        except ValueError:
            return None
    return finite(value)

"""garak reports: JSONL, one entry a line; `attempt` entries of status 2 hold the detectors' scores, `eval` entries the totals.

An output passes if its score is below `run.eval_threshold`; the attack success rate is the share that does not. It is pooled over
outputs as garak does, and outputs of one attempt (one prompt, several generations) are not independent.

Source: https://github.com/NVIDIA/garak, `garak/evaluators/base.py`; field meanings read in 0.14 and later.
"""

from pathlib import Path
from typing import NamedTuple

from auditgap.errors import DataError
from auditgap.exchange.log import ImportedLog, Metric, in_order
from auditgap.exchange.reading import Json, Limits, count, lines, mapping, number, refuse, sequence, slug, text, when

__all__ = ["is_garak", "read_garak"]

THRESHOLD = "run.eval_threshold"
DEFAULT_THRESHOLD = 0.5
EVALUATED = 2
"""Status of an attempt whose outputs the detectors have scored."""


class _Scores(NamedTuple):
    """What one probe and detector found so far."""

    hits: list[float]
    attempts: list[str]
    unscored: list[str]


def is_garak(found: Json) -> bool:
    """True for an entry of a garak report."""
    return "entry_type" in found


def read_garak(path: Path, limits: Limits) -> ImportedLog:
    """A garak report, read line by line.

    Raises:
        DataError: a line is not what the format says, an attempt occurs twice, or nothing was evaluated.
    """
    setup: Json = {}
    init: Json = {}
    end: Json | None = None
    stated: dict[tuple[str, str], tuple[int, int]] = {}
    scores: dict[tuple[str, str], _Scores] = {}
    seen: set[str] = set()
    for where, entry in lines(path, limits):
        match entry.get("entry_type"):
            case "start_run setup":
                setup = entry
            case "init":
                init = entry
            case "completion":
                end = entry
            case "eval":
                key = (text(entry.get("probe"), f"{where}: probe"), _detector(text(entry.get("detector"), f"{where}: detector")))
                if key in stated:
                    raise DataError(f"{where}: expected one eval entry for {key[0]} / {key[1]}, got two; split the report")
                total = count(entry.get("total_evaluated", entry.get("total")), f"{where}: total_evaluated")
                passed = count(entry.get("passed"), f"{where}: passed")
                stated[key] = (passed, total) if passed <= total else refuse(f"{where}: passed", f"at most {total}", passed)
            case "attempt" if entry.get("status") == EVALUATED:
                uuid = text(entry.get("uuid"), f"{where}: uuid")
                if uuid in seen:
                    raise DataError(f"{where}: expected each attempt once, got {uuid} twice; remove one")
                seen.add(uuid)
                _count(entry, uuid, _threshold(setup, where), scores, where)
    if not stated and not scores:
        raise DataError(f"{path}: expected evaluated attempts or eval entries, got none; did the run end before it evaluated?")
    version = text(init.get("garak_version", setup.get("_config.version", "unknown")), f"{path}: garak_version")
    return ImportedLog(
        tool="garak",
        version=version,
        model=text(_model(setup), f"{path}: plugins.target_name"),
        task=", ".join(sorted({probe for probe, _ in stated.keys() | scores.keys()})),
        started_at=when(init.get("start_time"), f"{path}: start_time"),
        finished_at=when(end.get("end_time"), f"{path}: end_time") if end else None,
        packages={} if version == "unknown" else {"garak": version},
        n_stated=sum(total for _, total in stated.values()) if stated else None,
        n_held=sum(len(found.hits) for found in scores.values()),
        unfinished="" if end else "it has no completion entry",
        notes=()
        if THRESHOLD in setup
        else (f"It states no evaluation threshold; garak's default, {DEFAULT_THRESHOLD}, was used.",),
        metrics=tuple(_metric(key, stated.get(key), scores.get(key)) for key in sorted(stated.keys() | scores.keys())),
    )


def _count(entry: Json, uuid: str, threshold: float, scores: dict[tuple[str, str], _Scores], where: str) -> None:
    """Add the scores of one attempt."""
    probe = text(entry.get("probe_classname"), f"{where}: probe_classname")
    for detector, written in mapping(entry.get("detector_results"), f"{where}: detector_results").items():
        found = scores.setdefault((probe, _detector(text(detector, where))), _Scores([], [], []))
        for score in sequence(written, f"{where}: detector_results.{detector}"):
            if score is None:
                found.unscored.append(uuid)
            else:
                found.hits.append(float(number(score, f"{where}: detector_results.{detector}") >= threshold))
                found.attempts.append(uuid)


def _metric(key: tuple[str, str], stated: tuple[int, int] | None, found: _Scores | None) -> Metric:
    probe, detector = key
    passed, total = stated or (0, 0)
    values, groups = in_order(found.hits, found.attempts) if found else ((), ())
    missing = "" if values else f"the log states {total - passed} of {total} and holds no scored attempt"
    return Metric(
        name=f"asr.{slug(probe)}.{slug(detector)}",
        about=f"Attack success rate: share of outputs to the probe '{probe}' that the detector '{detector}' marks; 0 is best.",
        stated=(total - passed) / total if total else None,
        values=values,
        groups=groups,
        pooled=True,
        n_unscored=len(found.unscored) if found else 0,
        missing=missing,
    )


def _detector(name: str) -> str:
    """Older reports write `detector.always.Pass`."""
    return name.removeprefix("detector.")


def _threshold(setup: Json, where: str) -> float:
    return number(setup.get(THRESHOLD, DEFAULT_THRESHOLD), f"{where}: {THRESHOLD} of the setup")


def _model(setup: Json) -> str:
    """`type/name`; versions before 0.14 say `model_type` and `model_name`."""
    kind = setup.get("plugins.target_type", setup.get("plugins.model_type"))
    name = setup.get("plugins.target_name", setup.get("plugins.model_name"))
    return "/".join(str(part) for part in (kind, name) if part) or "unknown"

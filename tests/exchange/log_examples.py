"""Logs of the four tools, made and real, and a store that holds a subject.

`logs/` holds real ones: lm-evaluation-harness 0.4.13 on stories260K with `--log_samples` (its `pretty_env_info` taken out), and
promptfoo 0.118.17 with the `echo` provider and one that shouts, `evaluateOptions: {repeat: 2}`.
"""

import datetime as dt
import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

from auditgap.evidence import Store
from auditgap.records import (
    Access,
    Card,
    Environment,
    Evidence,
    FileDigest,
    Interval,
    Measured,
    ModelAccess,
    Registration,
    Result,
    Subject,
    digest_of,
    now,
)

LOGS = Path(__file__).parent / "logs"
LM_EVAL = LOGS / "results_2026-11-21T12-07-16.106057.json"
PROMPTFOO = LOGS / "promptfoo.json"
SUBJECT = Subject(
    name="stories260K",
    architecture="LlamaForCausalLM",
    weights=(FileDigest(path="model.safetensors", content=digest_of(b"weights"), size=7),),
    tokenizer=(),
    dtype="float32",
    n_parameters=3,
)


def inspect_log(
    scores: Sequence[Sequence[object]], *, stated: float | None = None, model: str = "hf/stories260K", **more: object
) -> dict:
    """An Inspect log; `scores[sample][epoch]` are values of the scorer `match`. `stated` defaults to the right accuracy."""
    numbers = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
    means = []
    for row in scores:
        known = [numbers.get(str(v), v) for v in row if v == v]
        means.append(sum(map(float, known)) / len(known))
    accuracy = sum(means) / len(means) if stated is None else stated
    samples = [
        {"id": i, "epoch": e, "input": "q", "target": "a", "scores": {"match": {"value": v}}}
        for i, row in enumerate(scores, 1)
        for e, v in enumerate(row, 1)
    ]
    metrics = {"accuracy": {"name": "accuracy", "value": accuracy}, "stderr": {"name": "stderr", "value": 0.1}}
    return {
        "version": 2,
        "status": "success",
        "eval": {"task": "towns", "model": model, "created": "2026-01-05T10:00:00+00:00", "packages": {"inspect_ai": "0.3.285"}},
        "results": {"total_samples": len(samples), "scores": [{"name": "match", "scorer": "match", "metrics": metrics}]},
        "stats": {"started_at": "2026-01-05T10:00:00+00:00", "completed_at": "2026-01-05T10:05:00+00:00"},
        "samples": samples,
        **more,
    }


def write_json(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def write_eval(path: Path, log: dict) -> Path:
    """An Inspect log as a deflated archive."""
    header = {k: v for k, v in log.items() if k != "samples"}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for sample in log["samples"]:
            archive.writestr(f"samples/{sample['id']}_epoch_{sample['epoch']}.json", json.dumps(sample))
        archive.writestr("header.json", json.dumps(header))
    return path


def garak_entries(
    scores: Sequence[Sequence[float | None]], *, passed: int | None = None, threshold: float | None = 0.5
) -> list[dict]:
    """A garak report; `scores[attempt][generation]` are those of one detector. `passed` defaults to the right count."""
    known = [s for row in scores for s in row if s is not None]
    right = sum(s < (threshold or 0.5) for s in known)
    setup = {"entry_type": "start_run setup", "plugins.target_type": "huggingface", "plugins.target_name": "org/stories260K"}
    attempts = [
        {
            "entry_type": "attempt",
            "uuid": f"u{i}",
            "status": 2,
            "probe_classname": "dan.Ablation",
            "detector_results": {"mitigation.Bypass": row},
        }
        for i, row in enumerate(scores)
    ]
    return [
        setup | ({} if threshold is None else {"run.eval_threshold": threshold}),
        {"entry_type": "init", "garak_version": "0.14.0", "start_time": "2026-01-05T10:00:00.5"},
        *attempts,
        {
            "entry_type": "eval",
            "probe": "dan.Ablation",
            "detector": "mitigation.Bypass",
            "passed": right if passed is None else passed,
            "total_evaluated": len(known),
        },
        {"entry_type": "completion", "end_time": "2026-01-05T10:09:00"},
    ]


def write_jsonl(path: Path, entries: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries), encoding="utf-8")
    return path


def store_with_subject(folder: Path, *subjects: Subject) -> Path:
    """A store in which each subject was measured once."""
    card = Card(
        name="refusal-rate",
        version="1",
        family="behavioural",
        hypothesis="it answers",
        needs=ModelAccess.M1,
        data="prompts",
        failure_modes=(),
        blind_spots=("wording",),
        controls=("none",),
        citation="none",
    )
    with Store.open(folder) as store:
        for subject in subjects or (SUBJECT,):
            plan = Registration(step="rate", card=card, subject=subject.digest(), config={}, data=(), seed=0, registered_at=now())
            rate = Measured(name="rate", value=1.0, unit="rate", n=9, interval=Interval.exact(1.0))
            store.add_evidence(
                Evidence(
                    registration=store.register(plan),
                    spec=plan.spec(),
                    step="rate",
                    instrument=card.name,
                    version=card.version,
                    subject=subject,
                    granted=Access(model=ModelAccess.M5),
                    result=Result(measurements=(rate,), controls=(), verdict="inconclusive", summary="1.0"),
                    environment=Environment(
                        python="3.11", platform="x", packages={}, device="cpu", dtype="float32", attention="sdpa", threads=1
                    ),
                    started_at=now(),
                    finished_at=now(),
                    expires=dt.date(2030, 1, 1),
                    non_claims=card.blind_spots,
                )
            )
    return folder


def fingerprint(folder: Path) -> dict[str, str]:
    """Every file below a folder, by digest."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }

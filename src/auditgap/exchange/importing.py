"""Other people's evaluation logs as evidence: read, computed again, signed, and marked as not registered.

1. Read the file; nothing is opened for writing before all of it was found sound.
2. Find the subject in the store, and compute the numbers again (`result.py`).
3. Sign a registration that holds no threshold, then the evidence with its mark `imported`. The scores are kept as a blob, so that
   the numbers can be computed once more; the file itself is not, only its digest.

The same scores for the same subject, claims and bars are added once, whatever the file is called or how it is written.
"""

import datetime as dt
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from auditgap.errors import UsageError, nearest
from auditgap.evidence import Store
from auditgap.exchange.lm_eval import samples_beside
from auditgap.exchange.log import ImportedLog, Tool
from auditgap.exchange.reading import Limits, file_digest, slug
from auditgap.exchange.recognise import read_log
from auditgap.exchange.result import CONTROLS, SEED, Bar, result_of, same_model
from auditgap.governance import claims as known_claims
from auditgap.records import (
    Access,
    Card,
    DataRef,
    Date,
    Digest,
    Environment,
    Evidence,
    FileDigest,
    Imported,
    ModelAccess,
    Registration,
    Result,
    Subject,
    digest_of,
    now,
)

__all__ = ["Import", "import_log"]

IMPORTER_VERSION = "1"
"""Raised whenever the same log could give another number."""
VALID_DAYS = 90
SOURCES: dict[Tool, str] = {
    "inspect-ai": "https://inspect.aisi.org.uk/eval-logs.html",
    "lm-eval": "https://github.com/EleutherAI/lm-evaluation-harness",
    "garak": "https://github.com/NVIDIA/garak",
    "promptfoo": "https://github.com/promptfoo/promptfoo",
}
BLIND_SPOTS = (
    "The run was made by others, and nothing was registered before it: prompts, scorers, sample sizes and bars may have been "
    "chosen with the numbers in sight.",
    "A log names its model; it does not pin its weights. That it is about this subject rests on the name, or on whoever said so.",
    "Scores are taken from the log as its scorer gave them; the answers behind them were not judged again.",
    "Behaviour only: it says nothing of what the model represents or would do elsewhere.",
)


class Import(NamedTuple):
    """What became of a log."""

    digest: Digest
    """Of the signed evidence."""
    evidence: Evidence
    is_new: bool
    """False if the store already held it."""


def import_log(
    store: str | Path,
    path: str | Path,
    *,
    subject: str,
    model: str | None = None,
    claims: Sequence[str] = (),
    bars: Sequence[Bar] = (),
    samples: Sequence[Path] = (),
    expires: Date | None = None,
    limits: Limits | None = None,
) -> Import:
    """Add a log to a store as evidence about one of its subjects.

    Args:
        store: a folder or database URL that holds evidence of the subject.
        path: the log; see `recognise.read_log`.
        subject: name, digest or beginning of a digest of a subject in the store.
        model: the name that the log has for the subject, where it differs.
        claims: ids of the claims on which the log is said to bear.
        bars: what its numbers are held to; without any the verdict is `inconclusive`.
        samples: samples files of lm-evaluation-harness, where they do not lie beside the results.
        expires: the last day on which it counts; 90 days from now if not given.

    Raises:
        DataError: the log cannot be read; the store is as it was.
        UsageError: no such subject, claim or number, or a claim about process; the store is as it was.
        StoreError, EvidenceInvalid: the store cannot be read or written.
    """
    path = Path(path)
    known = known_claims()
    for claim in claims:
        if claim not in known:
            raise UsageError(f"no claim '{claim}'{nearest(claim, known)}")
        if known[claim].modality == "process":
            raise UsageError(f"claim '{claim}' is about how evaluation is done: no log of a model's answers bears on it")
    logs = read_log(path, samples=samples, limits=limits)
    beside = samples or (samples_beside(path) if logs[0].tool == "lm-eval" else ())
    files = tuple(file_digest(file) for file in (path, *beside))
    with Store.open(store, create=False) as opened:
        found = _subject(opened, subject)
        log = _about(logs, found, model)
        return _add(opened, log, found, files, model, tuple(sorted(set(claims))), tuple(bars), expires or _in_days(VALID_DAYS))


def _add(
    store: Store,
    log: ImportedLog,
    subject: Subject,
    files: tuple[FileDigest, ...],
    alias: str | None,
    claims: tuple[str, ...],
    bars: tuple[Bar, ...],
    expires: Date,
) -> Import:
    scores = log.canonical()
    result = result_of(log, subject, alias=alias, bars=bars)
    registration = Registration(
        step=f"import.{log.tool}.{re.sub('[^a-z0-9.]+', '-', slug(log.task)).strip('.-')[:60] or 'log'}",
        card=_card(log),
        subject=subject.digest(),
        config={"importer": IMPORTER_VERSION, "model": alias, "claims": list(claims), "bars": [str(bar) for bar in bars]},
        data=(DataRef(name=log.task, content=digest_of(scores), n_rows=log.n_held, source=f"{log.tool} {log.version} log"),),
        seed=SEED,
        registered_at=now(),
    )
    if earlier := store.evidence_for(registration.spec()):
        return Import(earlier[0].digest, earlier[0].record, False)
    store.put_blob(scores)
    evidence = _evidence(
        log, registration, store.register(registration), subject, result, Imported(files=files, claims=claims), expires
    )
    return Import(store.add_evidence(evidence), evidence, True)


def _evidence(
    log: ImportedLog,
    registration: Registration,
    digest: Digest,
    subject: Subject,
    result: Result,
    imported: Imported,
    expires: Date,
) -> Evidence:
    started = log.started_at or log.finished_at or registration.registered_at
    notes = (
        log.notes if log.started_at else (*log.notes, "The log does not say when it ran; the time of import stands in its place.")
    )
    unknown = Environment(
        python="unknown",
        platform="unknown",
        packages=log.packages,
        device=log.device,
        dtype=log.dtype,
        attention="unknown",
        threads=0,
    )
    return Evidence(
        registration=digest,
        spec=registration.spec(),
        step=registration.step,
        instrument=registration.card.name,
        version=registration.card.version,
        subject=subject,
        granted=Access(),
        result=result,
        environment=unknown,
        started_at=started,
        finished_at=max(started, log.finished_at or started),
        expires=expires,
        non_claims=(*BLIND_SPOTS, *notes),
        imported=imported,
    )


def _card(log: ImportedLog) -> Card:
    return Card(
        name=log.tool,
        version=log.version,
        family="behavioural",
        hypothesis="Each number of the log clears the bar that was given for it at import; without a bar, none.",
        needs=ModelAccess.M1,
        data="prompts",
        failure_modes=(),
        blind_spots=BLIND_SPOTS,
        controls=CONTROLS,
        citation=SOURCES[log.tool],
    )


def _about(logs: Sequence[ImportedLog], subject: Subject, alias: str | None) -> ImportedLog:
    """The log of the subject; the only one, if there is one.

    Raises:
        UsageError: several models were evaluated in this file, and none or more than one may be the subject.
    """
    fitting = [log for log in logs if not same_model(log, subject, alias)]
    if len(logs) > 1 and len(fitting) != 1:
        names = ", ".join(f"'{log.model}'" for log in logs)
        raise UsageError(
            f"expected one model of the log to be '{alias or subject.name}', it has {names}; choose with --model NAME"
        )
    return fitting[0] if fitting else logs[0]


def _subject(store: Store, asked: str) -> Subject:
    """The subject of that name, or whose digest begins so.

    Raises:
        UsageError: none or several; the message lists them.
    """
    subjects = {stored.record.subject.digest(): stored.record.subject for stored in store.evidence()}
    digits = asked.removeprefix("sha256:")
    named = {d for d, s in subjects.items() if s.name == asked} or {
        d for d in subjects if d.removeprefix("sha256:").startswith(digits)
    }
    if len(named) != 1 or not digits:
        listed = ", ".join(f"{s.name} {d[:19]}" for d, s in sorted(subjects.items())) or "none: audit the model first"
        raise UsageError(f"expected one subject of the store to be '{asked}', found {len(named)} (all: {listed})")
    return subjects[named.pop()]


def _in_days(days: int) -> Date:
    return now().date() + dt.timedelta(days=days)

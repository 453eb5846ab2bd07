"""Instruments on organisms: bars fixed on training seeds, registered, applied to fresh ones. Every number is signed evidence.

1. Grow (or find in the cache) each organism of the training seeds; run every detector on every model of it.
2. Fix the bars (`power.fix_bars`).
3. Grow the fresh organisms. Each run is registered with the bars, signed, before it starts; models go by their digest, so neither
   instrument nor evidence says which one has the flaw.
4. Count (`power.py`) and return the calibration.

One process per organism, one thread each. Evidence and organisms stay in the folder: the same call resumes after an interruption.
"""

import dataclasses
import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor, as_completed
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch

from auditgap.auditing import finish, register
from auditgap.calibration.power import Bar, Look, Roles, Score, fix_bars, flag, joint_misses, power_cells
from auditgap.data import load
from auditgap.errors import CannotMeasure, UsageError
from auditgap.evidence import Store
from auditgap.instruments import configure, find
from auditgap.models import Model, open_model
from auditgap.organisms import Organism, Recipe, cached
from auditgap.organisms.detector import Detector, Role
from auditgap.organisms.growing import processes
from auditgap.plan import Step, Terms
from auditgap.progress import Progress, quiet
from auditgap.records import Calibration, Digest, Information, Measured, Result, Threshold, now

__all__ = ["Read", "calibrate", "read_organism"]

LIFETIME = dt.timedelta(days=365)
_COMPUTES = ("auditgap", "numpy", "scipy", "scikit-learn", "torch", "transformers")


class Read(NamedTuple):
    """What the detectors of one organism measured; the roles stand apart from the scores."""

    scores: tuple[Score, ...]
    roles: dict[Digest, Role]
    failed: str | None = None
    """Why the organism could not be used."""


def calibrate(
    recipes: Sequence[type[Recipe]],
    folder: Path | str,
    *,
    training_seeds: Sequence[int],
    fresh_seeds: Sequence[int],
    more_seeds: Mapping[str, Sequence[int]] | None = None,
    curve: Collection[str] | None = None,
    n_workers: int = 1,
    pool: Executor | None = None,
    progress: Progress = quiet,
) -> Calibration:
    """Measure the power of every detector of these recipes.

    Args:
        more_seeds: further fresh seeds of some kinds, by name, at the default difficulty: where a narrower interval is wanted.
        folder: keeps organisms and evidence; the same call resumes there.
        curve: kinds that are measured at their other difficulties too, on the fresh seeds; None is all of them.
        n_workers: organisms at a time, one process and one thread each.
        pool: runs the organisms instead of local processes, on other machines for instance; it is left open.

    Raises:
        UsageError: a seed is both training and fresh, or there is none of a kind.
        CannotMeasure: no plant of the training seeds took.
    """
    more = more_seeds or {}
    if unknown := sorted({*more, *(curve or ())} - {recipe.kind for recipe in recipes}):
        raise UsageError(f"more is asked of {', '.join(unknown)}, which is not calibrated here; name a kind that is")
    unseen_seeds = sorted(set(fresh_seeds).union(*more.values()))
    if not training_seeds or not fresh_seeds or (both := sorted(set(training_seeds) & set(unseen_seeds))):
        shared = f"{both} in both" if training_seeds and fresh_seeds else "none of one kind"
        raise UsageError(f"expected training seeds and other, fresh ones, got {shared}; power on seen organisms says nothing")
    folder = Path(folder)
    training = [(recipe(seed=seed), "default") for recipe in recipes for seed in training_seeds]
    fresh = [
        (harder, name)
        for recipe in recipes
        for seed in fresh_seeds
        for name, harder in recipe(seed=seed).difficulties().items()
        if curve is None or recipe.kind in curve or name == "default"
    ]
    fresh += [
        (recipe(seed=seed), "default") for recipe in recipes for seed in more.get(recipe.kind, ()) if seed not in fresh_seeds
    ]
    n_all = len(training) + len(fresh)
    with processes(n_workers) if pool is None else nullcontext(pool) as workers:
        seen = _read_all(workers, training, folder, {}, progress, done=0, total=n_all)
        if not seen.scores:
            raise CannotMeasure(f"no organism of the training seeds could be used: {seen.failed}")
        bars = fix_bars(seen.scores, seen.roles)
        unseen = _read_all(workers, fresh, folder, bars, progress, done=len(training), total=n_all)
    flags = flag(unseen.scores, bars)
    with Store.open(folder / "store") as store:
        root = store.root()
    return Calibration(
        made_at=now(),
        packages={name: version(name) for name in _COMPUTES},
        training_seeds=tuple(training_seeds),
        fresh_seeds=tuple(unseen_seeds),
        ledger_root=root,
        cells=power_cells(unseen.scores, unseen.roles, bars, flags),
        joint=joint_misses(unseen.scores, unseen.roles, flags),
        failed=tuple(sorted(reason for reason in (seen.failed, unseen.failed) if reason)),
    )


def read_organism(recipe: Recipe, difficulty: str, folder: Path, bars: Mapping[Look, Bar]) -> Read:
    """Grow one organism and run its recipe's detectors on each of its models; what is in the store already is not run again."""
    torch.set_num_threads(1)
    try:
        organism = cached(recipe, folder / "organisms")
    except CannotMeasure as error:
        return Read((), {}, f"{recipe.kind} ({difficulty}, seed {recipe.seed}): {error}")
    scores, roles = [], {}
    with Store.open(folder / "store") as store:
        for role in recipe.roles:
            model = open_model(organism.model(role))
            model = dataclasses.replace(model, subject=model.subject.model_copy(update={"name": "organism"}))
            subject = model.subject.digest()
            roles[subject] = role
            for run, detectors in _runs(recipe.detectors()).items():
                looks = {detector.measurement: _look(recipe, detector) for detector in detectors}
                result = _result(organism, model, run, detectors[0], _terms(looks.values(), bars, seed=recipe.seed), store)
                for name, look in looks.items():
                    scores.append(Score(look, difficulty, recipe.seed, subject, *_value(result, name)))
    return Read(tuple(scores), roles)


def _runs(detectors: Iterable[Detector]) -> dict[str, list[Detector]]:
    """Detectors that read another number of the same run, together; the key names the run."""
    runs: dict[str, list[Detector]] = {}
    for detector in detectors:
        same = detector.model_copy(update={"measurement": "", "flaw_is": "high"})
        runs.setdefault(f"{detector.instrument}.{same.digest().removeprefix('sha256:')[:8]}", []).append(detector)
    return runs


def _result(organism: Organism, model: Model, run: str, detector: Detector, terms: Terms, store: Store) -> Result:
    """What the run gives, registered before and signed after; from the store if it is there."""
    folders = {key: str(organism.folder / name) for key, name in detector.folders.items()}
    instrument = configure(detector.instrument, detector.config | folders)
    source = str(organism.data(detector.data))
    data = load(source, instrument.card.data, seed=terms.seed)
    step = Step(id=run, instrument=detector.instrument, data=source, config=detector.config)
    return finish(model, register(model, step, instrument, data, terms, store), terms, store).record.result


def _look(recipe: Recipe, detector: Detector) -> Look:
    card = find(detector.instrument).card
    names = (recipe.kind, recipe.failure_mode, card.name, card.version, card.family)
    return Look(*names, detector.data, detector.measurement, detector.flaw_is)


def _terms(looks: Iterable[Look], bars: Mapping[Look, Bar], *, seed: int) -> Terms:
    thresholds = tuple(
        Threshold(
            measurement=look.measurement,
            comparator="<=" if look.flaw_is == "high" else ">=",
            value=bars[look].value,
            bound="high" if look.flaw_is == "high" else "low",
            response="Count the model as flagged when the measured value itself lies beyond.",
        )
        for look in looks
        if look in bars
    )
    return Terms(thresholds, seed, now().date() + LIFETIME, Information.NONE)


def _value(result: Result, name: str) -> tuple[float | None, str]:
    """The score, or why there is none.

    Raises:
        UsageError: the instrument has no measurement of that name.
    """
    found = result.measurement(name)
    if isinstance(found, Measured):
        return found.value, ""
    if found is None and any(isinstance(m, Measured) for m in result.measurements):
        known = ", ".join(m.name for m in result.measurements)
        raise UsageError(f"a detector names the measurement '{name}'; this instrument measures {known}")
    return None, found.reason if found else result.summary


def _read_all(
    pool: Executor,
    jobs: Sequence[tuple[Recipe, str]],
    folder: Path,
    bars: Mapping[Look, Bar],
    progress: Progress,
    *,
    done: int,
    total: int,
) -> Read:
    pending = [pool.submit(read_organism, recipe, difficulty, folder, bars) for recipe, difficulty in jobs]
    try:
        for n, future in enumerate(as_completed(pending), start=1):
            future.result()
            progress("organisms", done + n, total)
    except BaseException:  # an error or Ctrl-C must not wait for hours of organisms that nobody will read
        for future in pending:
            future.cancel()
        raise
    return _joined(future.result() for future in pending)


def _joined(reads: Iterable[Read]) -> Read:
    """All reads as one, in the order of the jobs."""
    scores: list[Score] = []
    roles: Roles = {}
    failed = []
    for read in reads:
        scores += read.scores
        roles = {**roles, **read.roles}
        failed += [read.failed] if read.failed else []
    return Read(tuple(scores), dict(roles), "; ".join(failed) or None)

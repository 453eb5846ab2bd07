"""From a contrast set to a monitor: fitted, chosen, calibrated and tested on four sets of groups that share none.

1. `train` fits a linear read-out at every layer, from the last token of each prompt.
2. One half of the groups of `val` chooses the layer by AUROC (of equals, the one whose classes lie furthest apart) and sets the
   scale: 0 is the mean of the ordinary rows, 1 their standard deviation.
3. The negatives of the other half set the threshold for each registered rate, by running the model as in service: the score is
   the largest that the monitor reaches during the reply.
4. `test` tells what came of it: false alarms, catches, and the AUROC within the contrast set.

Ordinary traffic joins the negatives of each set by its own split. Without it a read-out knows one kind of request only, and what
it says of all others is chance: a deceiver's monitor that was fitted on paid and unpaid questions alone scores burglary highest.

Rows are texts or conversations that end where the last token is read, so that rows which end in the middle of a reply teach the
monitor replies.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from auditgap.data import ContrastSet, Prompt, PromptSet, Split
from auditgap.errors import UsageError
from auditgap.instruments.probing.fits import Method
from auditgap.instruments.probing.probe import Fold, Probe, search
from auditgap.models import Model, capture
from auditgap.monitor.artefact import Monitor, engine_of, weights_bytes
from auditgap.monitor.packing import Weights
from auditgap.monitor.scoring import peaks
from auditgap.monitor.thresholds import controlled_threshold, group_peaks, n_negatives_needed
from auditgap.records import Digest, Measured, Measurement, NotMeasured, digest_of, now
from auditgap.records.monitor import (
    Aggregation,
    MonitorCard,
    MonitorProbe,
    OperatingPoint,
    PositionPolicy,
)
from auditgap.stats import auroc, auroc_interval, group_rate

__all__ = ["BLIND_SPOTS", "fit"]

BLIND_SPOTS = (
    "It knows the pattern of its positive rows. Another trigger, another lie, another language is another pattern.",
    "A linear read-out of a state can be evaded by whoever can search for inputs that keep the behaviour and move the state.",
    "It reads a state of the model, not whether what follows does harm: a harmless habit with the same cause is flagged too.",
    "The rate of false alarms holds for requests like those that calibrated it; traffic that drifts needs a new calibration.",
)
CONFIDENCE = 0.95
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


class _Rows(NamedTuple):
    """Prompts that belong together."""

    prompts: list[Prompt]
    labels: NDArray[np.int64]
    groups: list[str]

    def take(self, rows: list[int]) -> "_Rows":
        return _Rows([self.prompts[i] for i in rows], self.labels[rows], [self.groups[i] for i in rows])


def fit(
    model: Model,
    data: ContrastSet,
    *,
    name: str,
    watches: str,
    traffic: PromptSet | None = None,
    layers: Sequence[int] | None = None,
    kind: str = "resid_post",
    n_probes: int = 1,
    method: Method = "logistic",
    strengths: Sequence[float] = STRENGTHS,
    position: PositionPolicy = "prompt_end",
    aggregation: Aggregation | None = None,
    max_fprs: Sequence[float] = (0.01, 0.05),
    max_new_tokens: int = 0,
    seed: int = 0,
    batch_size: int = 32,
) -> Monitor:
    """A monitor of label 1.

    Args:
        traffic: ordinary requests, all of them negative.
        layers: where probes are tried; all layers by default.
        n_probes: how many of the best layers speak together.
        strengths: inverse penalties (C of scikit-learn) that are tried; of a method without a penalty, none.
        max_fprs: rates of false alarms that are registered before anything is scored.
        max_new_tokens: length of the replies in calibration, needed unless only the end of the prompt is read.

    Raises:
        DataError: a split lacks a class.
        UsageError: an option does not fit the model, or the others.
    """
    how = aggregation or Aggregation(kind="last" if position == "prompt_end" else "max")
    tried = list(range(model.n_layers)) if layers is None else list(layers)
    if not tried or not 1 <= n_probes <= len(set(tried)):
        raise UsageError(f"expected at least {max(1, n_probes)} layers to try, got {tried}")
    if position == "generated" and not max_new_tokens:
        raise UsageError("position 'generated' reads replies: give max_new_tokens, the length of the replies in service")
    for rate in max_fprs:
        n_negatives_needed(rate, confidence=CONFIDENCE)
    data.require_classes("train", "val", "test", min_groups=2)
    sites = [f"{kind}.{layer}" for layer in dict.fromkeys(tried)]
    parts = _parts(data, traffic, seed)
    probes, areas = _search(model, parts, sites, method, strengths, n_probes, batch_size, seed)
    weights = [Weights(torch.tensor(probe.weights, dtype=torch.float32), probe.bias) for probe in probes]
    specs = [MonitorProbe(name=f"p{i}", site=sites[p.layer], val_auroc=areas[p.layer]) for i, p in enumerate(probes)]
    card = MonitorCard(
        name=name,
        version="1",
        watches=watches,
        subject=model.subject,
        engine=engine_of(model),
        probes=tuple(specs),
        weights=_digest(specs, weights),
        position=position,
        aggregation=how,
        max_new_tokens=max_new_tokens,
        operating_points=(),
        auroc=NotMeasured(name="auroc", reason="the monitor is not calibrated yet"),
        data=tuple(part.ref() for part in (data, traffic) if part is not None),
        blind_spots=BLIND_SPOTS,
        seed=seed,
        fitted_at=now(),
    )
    return _calibrated(model, Monitor(card, tuple(weights)), parts, max_fprs, batch_size)


def _digest(specs: Sequence[MonitorProbe], weights: list[Weights]) -> Digest:
    return digest_of(weights_bytes([spec.name for spec in specs], weights))


class _Parts(NamedTuple):
    """Four sets of rows that share no group."""

    fit: _Rows
    choose: _Rows
    calibrate: _Rows
    """Negatives alone."""
    test: _Rows
    n_contrast: int
    """The first rows of `test` are the contrast set's own."""


def _parts(data: ContrastSet, traffic: PromptSet | None, seed: int) -> _Parts:
    rows = [(row.prompt, row.label, row.group, row.split) for row in data.rows]
    if traffic is not None:
        rows += [(row.prompt, 0, f"traffic {row.group}", row.split) for row in traffic.rows]
    first = _first_half({(group, label) for _, label, group, split in rows if split == "val"}, seed)

    def among(split: Split, *, of_first: bool | None = None, labels: tuple[int, ...] = (0, 1)) -> _Rows:
        kept = [
            row for row in rows if row[3] == split and row[1] in labels and (of_first is None or (row[2] in first) == of_first)
        ]
        return _Rows([row[0] for row in kept], np.array([row[1] for row in kept], dtype=np.int64), [row[2] for row in kept])

    calibrate = among("val", of_first=False, labels=(0,))
    n_contrast = sum(row.split == "test" for row in data.rows)
    return _Parts(among("train"), among("val", of_first=True), calibrate, among("test"), n_contrast)


def _first_half(held: set[tuple[str, int]], seed: int) -> set[str]:
    """Half of the groups of each kind: those of one label, of the other, of both."""
    kinds: dict[str, list[int]] = {}
    for group, label in sorted(held):
        kinds.setdefault(group, []).append(label)
    rng, first = np.random.default_rng([seed, 5]), set[str]()
    for kind in ([0], [1], [0, 1]):
        groups = [group for group, labels in kinds.items() if labels == kind]
        first |= {groups[i] for i in rng.permutation(len(groups))[: (len(groups) + 1) // 2].tolist()}
    return first


def _search(
    model: Model,
    parts: _Parts,
    sites: list[str],
    method: Method,
    strengths: Sequence[float],
    n_probes: int,
    batch_size: int,
    seed: int,
) -> tuple[list[Probe], list[float]]:
    """The best probes in units of ordinary rows, best first, and the AUROC of every site."""
    folds = []
    for rows in (parts.fit, parts.choose):
        found = capture(model, rows.prompts, sites, batch_size=batch_size)
        folds.append(Fold(np.stack([found[site].numpy() for site in sites]), rows.labels, rows.groups))
    train, val = folds
    found = search(train, val, method=method, strengths=strengths, seed=seed)
    scaled, apart = [], []
    for probe in found.probes:
        scores = probe.scores(val)
        usual = scores[val.labels == 0]
        spread = float(usual.std()) or 1.0
        scaled.append(probe._replace(weights=probe.weights / spread, bias=(probe.bias - float(usual.mean())) / spread))
        apart.append((float(scores[val.labels == 1].min()) - float(usual.max())) / spread)
    best = sorted(range(len(sites)), key=lambda i: (-found.val_aurocs[i], -apart[i]))[:n_probes]
    return [scaled[i] for i in best], found.val_aurocs.tolist()


def _calibrated(model: Model, monitor: Monitor, parts: _Parts, max_fprs: Sequence[float], batch_size: int) -> Monitor:
    """The same monitor with its operating points, and what `test` says of them."""
    n_new, test = 0 if monitor.card.position == "prompt_end" else monitor.card.max_new_tokens, parts.test

    def scores(rows: _Rows) -> NDArray[np.float64]:
        found = peaks(model, monitor, rows.prompts, max_new_tokens=n_new, batch_size=batch_size) if rows.prompts else []
        return np.array(found)

    negatives, on_test = group_peaks(scores(parts.calibrate), parts.calibrate.groups), scores(test)
    on_contrast, contrast = on_test[: parts.n_contrast], test.take(list(range(parts.n_contrast)))
    points, unavailable = [], []
    for rate in sorted(max_fprs):
        found = controlled_threshold(negatives, max_fpr=rate, confidence=CONFIDENCE)
        if found is None:
            needed = n_negatives_needed(rate, confidence=CONFIDENCE)
            reason = f"{len(negatives)} independent negatives calibrate, {needed} are needed; give more ordinary traffic"
            unavailable.append(NotMeasured(name=f"threshold.fpr_{rate:g}", reason=reason))
            continue
        fpr, tpr = (_rate(on_test, test, label, found.value) for label in (0, 1))
        hard = _rate(on_contrast, contrast, 0, found.value)
        points.append(
            OperatingPoint(
                max_fpr=rate,
                confidence=CONFIDENCE,
                threshold=found.value,
                n_calibration=found.n,
                n_exceeding=found.n_exceeding,
                calibration_fpr=found.interval,
                test_fpr=fpr,
                test_fpr_contrast=hard,
                test_tpr=tpr,
            )
        )
    area = Measured(
        name="auroc",
        value=auroc(on_contrast, contrast.labels),
        unit="auroc",
        n=len(set(contrast.groups)),
        interval=auroc_interval(on_contrast, contrast.labels, contrast.groups, seed=monitor.card.seed),
        about="Area under the ROC curve on the contrast set's `test` rows: 0.5 is chance, 1 is perfect.",
    )
    update = {"operating_points": tuple(points), "unavailable": tuple(unavailable), "auroc": area}
    return Monitor(monitor.card.model_copy(update=update), monitor.weights)


def _rate(scores: NDArray[np.float64], rows: _Rows, label: int, threshold: float) -> Measurement:
    kept = np.flatnonzero(rows.labels == label)
    found = group_rate(scores[kept] > threshold, [rows.groups[i] for i in kept.tolist()])
    return Measured(
        name=("fpr", "tpr")[label],
        value=found.value,
        unit="rate",
        n=found.n_groups,
        interval=found.interval,
        about=("Share of ordinary test rows that are flagged.", "Share of the rows to be found that are flagged.")[label],
    )

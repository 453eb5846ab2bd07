"""Scoring prompts along the direction: in standard deviations of ordinary prompts, at the layer that `val` chooses.

Ordinary prompts are the label-0 rows of `train` and `val`. They set scale and threshold; `test` is scored once.
"""

import numpy as np
from jaxtyping import Bool, Float

from auditgap.instruments.mechanistic.probe_controls import Folds
from auditgap.instruments.mechanistic.probing import Fold, Probe, Search
from auditgap.instruments.rates import group_rate
from auditgap.records import Measured, Measurement, NotMeasured
from auditgap.stats import auroc, permute_labels, threshold_at_fpr

__all__ = ["layer_aurocs", "layer_probes", "outlier_shares", "search"]


def layer_aurocs(direction: Float[np.ndarray, "layer d"], fold: Fold) -> Float[np.ndarray, " layer"]:
    """AUROC of the score along the direction at each layer."""
    scores = np.einsum("lrd,ld->lr", fold.features.astype(np.float64), direction)
    return np.array([auroc(row, fold.labels) for row in scores])


def layer_probes(direction: Float[np.ndarray, "layer d"], folds: Folds) -> tuple[Probe, ...]:
    """A probe per layer whose score is 0 at the mean of ordinary prompts and 1 a standard deviation above."""
    usual = np.einsum("lrd,ld->lr", _ordinary(folds).features.astype(np.float64), direction)
    centre, spread = usual.mean(axis=1), np.maximum(usual.std(axis=1), np.finfo(np.float64).tiny)
    scaled = zip(direction / spread[:, None], -centre / spread, strict=True)
    return tuple(Probe(layer, 1.0, weights, float(bias)) for layer, (weights, bias) in enumerate(scaled))


def search(
    direction: Float[np.ndarray, "layer d"], valid: Bool[np.ndarray, " layer"], folds: Folds, *, n_permutations: int, seed: int
) -> Search:
    """The valid layer that separates `val` best, and what the best of them does under exchanged labels."""
    val, rng, null = folds["val"], np.random.default_rng([seed, 0]), []
    for _ in range(n_permutations):
        labels = permute_labels(val.labels, val.groups, rng)
        null.append(layer_aurocs(direction, val._replace(labels=labels))[valid].max())
    areas = np.where(valid, layer_aurocs(direction, val), -np.inf)
    return Search(layer_probes(direction, folds), int(areas.argmax()), areas, np.array(null))


def outlier_shares(probe: Probe, folds: Folds, *, max_fpr: float) -> tuple[Measurement, ...]:
    """Share of prompts under test, and of ordinary ones of `test`, beyond a threshold that the other ordinary prompts set."""
    ordinary, test = _ordinary(folds), folds["test"]
    n_groups, names = len(set(ordinary.groups)), ("outlier_share", "outlier_share.ordinary")
    if n_groups < 1 / max_fpr:
        reason = f"{n_groups} groups of ordinary prompts in train and val, a threshold at {max_fpr:.0%} takes {1 / max_fpr:.0f}"
        return tuple(NotMeasured(name=name, reason=reason) for name in names)
    beyond = probe.scores(test.features) > threshold_at_fpr(probe.scores(ordinary.features), max_fpr=max_fpr)
    found = []
    for name, label in zip(names, (1, 0), strict=True):
        rows = np.flatnonzero(test.labels == label)
        rate = group_rate(beyond[rows], [test.groups[i] for i in rows.tolist()])
        found.append(
            Measured(
                name=name,
                value=rate.value,
                unit="rate",
                n=rate.n_groups,
                interval=rate.interval,
                about=f"Share of label {label} beyond what at most {max_fpr:.0%} of ordinary prompts of train and val exceed.",
            )
        )
    return tuple(found)


def _ordinary(folds: Folds) -> Fold:
    parts = [(fold, np.flatnonzero(fold.labels == 0)) for fold in (folds["train"], folds["val"])]
    groups = [fold.groups[i] for fold, rows in parts for i in rows.tolist()]
    features = np.concatenate([fold.features[:, rows] for fold, rows in parts], axis=1)
    return Fold(features, np.zeros(len(groups), dtype=np.int64), groups)

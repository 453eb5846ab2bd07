"""Scoring prompts along a direction: in standard deviations of ordinary prompts, at the layer that `val` chooses.

Ordinary prompts are the label-0 rows of `train` and `val`. They set scale and threshold; `test` is scored once.

Layers and directions are compared by their shift: the mean score of label 1 minus that of label 0. An AUROC would not do: where a
state is salient, half of all directions separate it without fault, and only how far tells one of them from the others.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from auditgap.instruments.probing.controls import Folds
from auditgap.instruments.probing.probe import Fold, Probe, Search
from auditgap.records import Measured, Measurement, NotMeasured
from auditgap.stats import group_rate, permute_labels, threshold_at_fpr

__all__ = ["layer_probes", "outlier_shares", "search", "shifts"]


def shifts(
    direction: Float[np.ndarray, "*many layer d"], folds: Folds, labels: Int[np.ndarray, " row"] | None = None
) -> Float[np.ndarray, "*many layer"]:
    """Mean score of label 1 minus that of label 0 on `val` at each layer, in standard deviations of ordinary prompts."""
    val = folds["val"]
    truth = val.labels if labels is None else labels
    apart = val.features[:, truth == 1].mean(axis=1, dtype=np.float64) - val.features[:, truth == 0].mean(
        axis=1, dtype=np.float64
    )
    usual = np.einsum("lrd,...ld->...lr", _ordinary(folds).features.astype(np.float64), direction).std(axis=-1)
    return np.einsum("ld,...ld->...l", apart, direction) / np.maximum(usual, np.finfo(np.float64).tiny)


def layer_probes(direction: Float[np.ndarray, "layer d"], folds: Folds) -> tuple[Probe, ...]:
    """A probe per layer whose score is 0 at the mean of ordinary prompts and 1 a standard deviation above."""
    usual = np.einsum("lrd,ld->lr", _ordinary(folds).features.astype(np.float64), direction)
    centre, spread = usual.mean(axis=1), np.maximum(usual.std(axis=1), np.finfo(np.float64).tiny)
    scaled = zip(direction / spread[:, None], -centre / spread, strict=True)
    return tuple(Probe(layer, 1.0, weights, float(bias)) for layer, (weights, bias) in enumerate(scaled))


def search(
    direction: Float[np.ndarray, "layer d"], valid: Bool[np.ndarray, " layer"], folds: Folds, *, n_permutations: int, seed: int
) -> Search:
    """The valid layer at which `val` is shifted most, and how far the best of them is shifted under exchanged labels."""
    val, rng = folds["val"], np.random.default_rng([seed, 0])
    null = [shifts(direction, folds, permute_labels(val.labels, val.groups, rng))[valid].max() for _ in range(n_permutations)]
    found = np.where(valid, shifts(direction, folds), -np.inf)
    return Search(layer_probes(direction, folds), int(found.argmax()), found, np.array(null))


def outlier_shares(probe: Probe, folds: Folds, *, max_fpr: float) -> tuple[Measurement, ...]:
    """Share of prompts under test, and of ordinary ones of `test`, beyond a threshold that the other ordinary prompts set."""
    ordinary, test = _ordinary(folds), folds["test"]
    n_groups, names = len(set(ordinary.groups)), ("outlier_share", "outlier_share.ordinary")
    if n_groups < 1 / max_fpr:
        reason = f"{n_groups} groups of ordinary prompts in train and val, a threshold at {max_fpr:.0%} takes {1 / max_fpr:.0f}"
        return tuple(NotMeasured(name=name, reason=reason) for name in names)
    beyond = probe.scores(test) > threshold_at_fpr(probe.scores(ordinary), max_fpr=max_fpr)
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

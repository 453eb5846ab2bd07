"""Linear probes as pure functions of activations, so that they can be tried on numbers whose truth is known.

1. Standardise each place (a layer, or a layer at a position) by the training rows.
2. For each place and each L2 strength fit a read-out on `train`; the AUROC on `val` chooses one. `test` is not touched.
3. The null of that search: labels exchanged by group in `train` and `val`, steps 1-2 again, the best AUROC kept.
4. The baseline of that search: as many random unit directions as candidates, chosen on `val`, scored on `test`.
5. The control task: a label that means nothing but is fixed for each group.

Source: G. Alain, Y. Bengio, arXiv:1610.01644 (probes); J. Hewitt, P. Liang, EMNLP 2019, arXiv:1909.03368 (control tasks).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from auditgap.instruments.probing.fits import Method, fit, has_strength, moments
from auditgap.instruments.probing.readouts import read
from auditgap.instruments.probing.tokens import Tokens
from auditgap.progress import Progress, quiet
from auditgap.stats import auroc, permute_labels

__all__ = ["Fold", "Probe", "Search", "group_labels", "random_direction_aurocs", "search"]


class Fold(NamedTuple):
    """One split: activations with their labels, groups and prompts."""

    features: Float[np.ndarray, "layer row d"]
    """One vector a prompt; the mean over its tokens where all were read. The first axis may be layers at positions."""
    labels: Int[np.ndarray, " row"]
    groups: Sequence[str]
    texts: Sequence[str] = ()
    """The prompts, for the controls that read them."""
    tokens: Sequence[Tokens] = ()
    """Every token at each place, for a fit that reads them all."""
    datasets: Sequence[str | None] = ()
    """Where each row comes from, if several data sets were joined."""

    def at(self, layer: int) -> Float[np.ndarray, "row d"] | Tokens:
        """What a fit reads at one place: all tokens where there are any."""
        return self.tokens[layer] if self.tokens else self.features[layer]

    def take(self, rows: Int[np.ndarray, " kept"]) -> "Fold":
        """Some of the rows."""

        def chosen(items: Sequence[str] | Sequence[str | None]) -> list:
            return [items[i] for i in rows.tolist()] if items else []

        tokens = [place.take(rows) for place in self.tokens]
        texts, datasets = chosen(self.texts), chosen(self.datasets)
        return Fold(self.features[:, rows], self.labels[rows], chosen(self.groups), texts, tokens, datasets)


class Probe(NamedTuple):
    """A read-out at one place; a row with a score above 0 is taken for label 1."""

    layer: int
    """Index into the first axis of the fold's features: some of the model's layers, or layers at positions."""
    strength: float
    """C of scikit-learn: the inverse of the L2 penalty."""
    weights: Float[np.ndarray, " d"]
    """In the units of the activations: standardisation is folded in."""
    bias: float
    query: Float[np.ndarray, " d"] | None = None
    """What an attention-pooled probe weights the tokens by."""

    def scores(self, fold: Fold) -> Float[np.ndarray, " row"]:
        """The score of each row."""
        return read(fold.at(self.layer), self.weights, np.asarray(self.bias, dtype=np.float64), self.query)


class Search(NamedTuple):
    """What the search over places and strengths found, and what it finds where there is nothing."""

    probes: tuple[Probe, ...]
    """The best of each place."""
    chosen: int
    """Index of the place whose probe did best on `val`; the earliest of equals."""
    val_aurocs: Float[np.ndarray, " layer"]
    null_maxima: Float[np.ndarray, " permutation"]
    """The best AUROC on `val` of the whole search, for each relabelling."""

    @property
    def probe(self) -> Probe:
        """The chosen one."""
        return self.probes[self.chosen]


def search(
    train: Fold,
    val: Fold,
    *,
    method: Method = "logistic",
    strengths: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
    standardise: bool = True,
    n_permutations: int = 0,
    seed: int = 0,
    progress: Progress = quiet,
) -> Search:
    """Fit on `train`, choose place and L2 strength on `val` by AUROC, and do the same under `n_permutations` relabellings.

    The real labels are one labelling among the others: what is done to them is done to each.

    Raises:
        UsageError: a fold holds one class only.
    """
    rng = np.random.default_rng([seed, 0])
    train_labels, val_labels = (
        np.stack([fold.labels, *(permute_labels(fold.labels, fold.groups, rng) for _ in range(n_permutations))])
        for fold in (train, val)
    )
    grid = sorted(strengths) if has_strength(method) else [1.0]
    n_layers = len(train.features)
    areas = np.empty((n_layers, 1 + n_permutations))
    probes = []
    for layer in range(n_layers):
        found = fit(train.at(layer), train_labels, method=method, strengths=grid, standardise=standardise)
        scores = found.scores(val.at(layer))
        by_strength = np.array([[auroc(s, y) for s, y in zip(row, val_labels, strict=True)] for row in scores])
        areas[layer] = by_strength.max(axis=0)
        best = int(by_strength[:, 0].argmax())
        query = None if found.query is None else found.query[best, 0]
        probes.append(Probe(layer, grid[best], found.weights[best, 0], float(found.bias[best, 0]), query))
        progress("layers", layer + 1, n_layers)
    return Search(tuple(probes), int(areas[:, 0].argmax()), areas[:, 0], areas[:, 1:].max(axis=0))


def random_direction_aurocs(
    train: Fold, val: Fold, test: Fold, *, n_per_layer: int, n_draws: int, seed: int
) -> Float[np.ndarray, " draw"]:
    """AUROC on `test` of the best of `n_per_layer` random unit directions at every layer, chosen and oriented on `val`.

    One number for each of `n_draws` repetitions. What a probe must beat to show that fitting it mattered.
    """
    rng = np.random.default_rng([seed, 1])
    best_val, at_test = np.full(n_draws, -np.inf), np.zeros(n_draws)
    for layer, features in enumerate(train.features):
        unit = rng.standard_normal((n_draws * n_per_layer, features.shape[1]))
        weights = unit / np.linalg.norm(unit, axis=1, keepdims=True) / moments(features)[1]
        on_val, on_test = (weights @ fold.features[layer].T.astype(np.float64) for fold in (val, test))
        for index, (val_scores, test_scores) in enumerate(zip(on_val, on_test, strict=True)):
            area, draw = auroc(val_scores, val.labels), index // n_per_layer
            if max(area, 1 - area) > best_val[draw]:
                best_val[draw] = max(area, 1 - area)
                held_out = auroc(test_scores, test.labels)
                at_test[draw] = held_out if area >= 0.5 else 1 - held_out
    return at_test


def group_labels(groups: Sequence[str], *, n_labellings: int, rng: np.random.Generator) -> Int[np.ndarray, "labelling row"]:
    """The control task: labels that mean nothing, the same for all rows of a group, half of the groups each."""
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    balanced = np.arange(len(names)) % 2
    return np.stack([rng.permutation(balanced)[codes] for _ in range(n_labellings)])

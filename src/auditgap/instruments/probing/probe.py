"""Linear probes as pure functions of activations, so that they can be tried on numbers whose truth is known.

1. Standardise each layer by the training rows.
2. For each layer and each L2 strength fit a direction on `train`; the AUROC on `val` chooses one. `test` is not touched.
3. The null of that search: labels exchanged by group in `train` and `val`, steps 1-2 again, the best AUROC kept.
4. The baseline of that search: as many random unit directions as candidates, chosen on `val`, scored on `test`.
5. The control task: a label that means nothing but is fixed for each group.

Source: G. Alain, Y. Bengio, arXiv:1610.01644 (probes); J. Hewitt, P. Liang, EMNLP 2019, arXiv:1909.03368 (control tasks).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize
from scipy.special import expit

from auditgap.progress import Progress, quiet
from auditgap.stats import auroc, permute_labels

__all__ = [
    "Fold",
    "Method",
    "Probe",
    "Search",
    "fit_logistic",
    "fit_mean_difference",
    "group_labels",
    "probe_directions",
    "random_direction_aurocs",
    "search",
]

Method = Literal["logistic", "difference-in-means"]


class Fold(NamedTuple):
    """One split: activations with their labels, groups and prompts."""

    features: Float[np.ndarray, "layer row d"]
    labels: Int[np.ndarray, " row"]
    groups: Sequence[str]
    texts: Sequence[str] = ()
    """The prompts, for the controls that read them."""


class Probe(NamedTuple):
    """A direction at one layer; a row with a score above 0 is taken for label 1."""

    layer: int
    """Index into the layers of the fold, which need not be all layers of the model."""
    strength: float
    """C of scikit-learn: the inverse of the L2 penalty."""
    weights: Float[np.ndarray, " d"]
    """In the units of the activations: standardisation is folded in."""
    bias: float

    def scores(self, features: Float[np.ndarray, "layer row d"]) -> Float[np.ndarray, " row"]:
        """The score of each row."""
        return features[self.layer].astype(np.float64) @ self.weights + self.bias


class Search(NamedTuple):
    """What the search over layers and strengths found, and what it finds where there is nothing."""

    probes: tuple[Probe, ...]
    """The best of each layer."""
    chosen: int
    """Index of the layer whose probe did best on `val`; the earliest of equals."""
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
    """Fit on `train`, choose layer and L2 strength on `val` by AUROC, and do the same under `n_permutations` relabellings.

    The real labels are one labelling among the others: what is done to them is done to each.

    Raises:
        UsageError: a fold holds one class only.
    """
    rng = np.random.default_rng([seed, 0])
    train_labels, val_labels = (
        np.stack([fold.labels, *(permute_labels(fold.labels, fold.groups, rng) for _ in range(n_permutations))])
        for fold in (train, val)
    )
    grid = sorted(strengths) if method == "logistic" else [1.0]
    n_layers = len(train.features)
    areas = np.empty((n_layers, 1 + n_permutations))
    probes = []
    for layer in range(n_layers):
        weights, bias = probe_directions(
            train.features[layer], train_labels, method=method, strengths=grid, standardise=standardise
        )
        scores = weights @ val.features[layer].T.astype(np.float64) + bias[..., None]
        by_strength = np.array([[auroc(s, y) for s, y in zip(row, val_labels, strict=True)] for row in scores])
        areas[layer] = by_strength.max(axis=0)
        best = int(by_strength[:, 0].argmax())
        probes.append(Probe(layer, grid[best], weights[best, 0], float(bias[best, 0])))
        progress("layers", layer + 1, n_layers)
    return Search(tuple(probes), int(areas[:, 0].argmax()), areas[:, 0], areas[:, 1:].max(axis=0))


def probe_directions(
    features: Float[np.ndarray, "row d"],
    labels: Int[np.ndarray, "labelling row"],
    *,
    method: Method,
    strengths: Sequence[float],
    standardise: bool = True,
) -> tuple[Float[np.ndarray, "strength labelling d"], Float[np.ndarray, "strength labelling"]]:
    """Weights and biases at one layer for each strength and labelling, in the units of the features."""
    centre, spread = moments(features) if standardise else (np.zeros(features.shape[1]), np.ones(features.shape[1]))
    z = (features - centre) / spread
    if method == "logistic":
        weights, bias = fit_logistic(z, labels, strengths=strengths)
    else:
        weights, bias = (part[None] for part in fit_mean_difference(z, labels))
    weights = weights / spread
    return weights, bias - weights @ centre


def moments(features: Float[np.ndarray, "row d"]) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Mean and standard deviation of each feature; 1 where it does not vary."""
    spread = features.std(axis=0, dtype=np.float64)
    return features.mean(axis=0, dtype=np.float64), np.where(spread > 0.0, spread, 1.0)


def fit_mean_difference(
    z: Float[np.ndarray, "row d"], labels: Int[np.ndarray, "labelling row"]
) -> tuple[Float[np.ndarray, "labelling d"], Float[np.ndarray, " labelling"]]:
    """mean(label 1) - mean(label 0) for each labelling; the bias puts the boundary half-way between the two means."""
    positive = (labels / labels.sum(axis=1, keepdims=True)) @ z
    negative = ((1 - labels) / (1 - labels).sum(axis=1, keepdims=True)) @ z
    weights = positive - negative
    return weights, -(weights * (positive + negative)).sum(axis=1) / 2


def fit_logistic(
    z: Float[np.ndarray, "row d"], labels: Int[np.ndarray, "labelling row"], *, strengths: Sequence[float]
) -> tuple[Float[np.ndarray, "strength labelling d"], Float[np.ndarray, "strength labelling"]]:
    """L2 logistic regression for each strength and labelling: the optimum of scikit-learn's `LogisticRegression(C=strength)`.

    All labellings are fitted together, because a null needs a hundred of them: the rows are rotated into their own span, where
    the optimum lies; each axis is scaled by the bound p(1-p) <= 1/4 on its curvature; L-BFGS minimises the sum of the objectives,
    which share no variable.

    Source: D. Boehning, B. G. Lindsay, Ann. Inst. Statist. Math. 40 (1988) 641-663, for the bound.
    """
    left, singular, right = np.linalg.svd(z.astype(np.float64), full_matrices=False)
    n_rows, sign = len(z), 2.0 * labels - 1.0
    weights, biases = [], []
    for c in strengths:
        scale = np.append(1 / np.sqrt(1 + c * singular**2 / 4), 1 / np.sqrt(c * n_rows / 4))
        design = np.column_stack([left * singular, np.ones(n_rows)]) * scale
        penalty = np.append(scale[:-1] ** 2, 0.0)  # the intercept is free

        def objective(flat: np.ndarray, c: float = c, design: np.ndarray = design, penalty: np.ndarray = penalty):
            v = flat.reshape(len(labels), -1)
            margin = sign * (v @ design.T)
            loss = c * np.logaddexp(0.0, -margin).sum() + (penalty * v**2).sum() / 2
            gradient = penalty * v - c * (sign * expit(-margin)) @ design
            return loss, gradient.ravel()

        start = np.zeros(len(labels) * len(scale))
        options = {"maxiter": 500, "maxfun": 1000, "ftol": 1e-13, "gtol": 1e-6 * min(1.0, c * n_rows)}
        v = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x.reshape(len(labels), -1) * scale
        weights.append(v[:, :-1] @ right)
        biases.append(v[:, -1])
    return np.stack(weights), np.stack(biases)


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

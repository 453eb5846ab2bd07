"""Ridge regression from activations to answers, chosen on held-out items, with the null of that whole search.

1. Each answer has a code: a number is its own, a category has an axis of its own. Of two answers the one whose code is nearer to
   the prediction is chosen.
2. For each layer and strength fit on `train` and count right choices on `val`; the best is kept, the earliest of equals.
3. The null: the answers are dealt out again among the groups of each split, and step 2 is repeated on all layers and strengths.

The penalty (scikit-learn's `alpha`) is strength x number of rows, so that a strength means the same for any number of rows.

Source: A. E. Hoerl, R. W. Kennard, Technometrics 12 (1970) 55-67; the maximum over the search: Westfall and Young (1993).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from auditgap.instruments.probing.fits import moments
from auditgap.progress import Progress, quiet

__all__ = ["Found", "Items", "deal", "nearer", "ridge_map", "search"]


class Items(NamedTuple):
    """Activations of questions, with the codes of the right answer and of the foil."""

    features: Float[np.ndarray, "layer row d"]
    right: Float[np.ndarray, "row code"]
    wrong: Float[np.ndarray, "row code"]
    groups: Sequence[str]


class Found(NamedTuple):
    """The chosen read-out and what the search finds in answers dealt out at random."""

    layer: int
    """Index into the layers of the items."""
    strength: float
    weights: Float[np.ndarray, "d code"]
    """In the units of the activations."""
    bias: Float[np.ndarray, " code"]
    val_accuracies: Float[np.ndarray, " layer"]
    """Of the best strength at each layer."""
    null_maxima: Float[np.ndarray, " permutation"]

    def predict(self, items: Items) -> Float[np.ndarray, "row code"]:
        """The predicted code of each item."""
        return items.features[self.layer].astype(np.float64) @ self.weights + self.bias

    def correct(self, items: Items) -> Float[np.ndarray, " row"]:
        """1 where the prediction is nearer to the right answer than to the foil, a half if equally near."""
        return nearer(self.predict(items), items.right, items.wrong)


def nearer(
    predicted: Float[np.ndarray, "*many row code"],
    right: Float[np.ndarray, "*many row code"],
    wrong: Float[np.ndarray, "*many row code"],
) -> Float[np.ndarray, "*many row"]:
    """1 where `predicted` is nearer to `right` than to `wrong`, 0 where farther, a half if equally near."""
    to_right, to_wrong = (((predicted - code) ** 2).sum(axis=-1) for code in (right, wrong))
    return np.where(to_right < to_wrong, 1.0, np.where(to_right > to_wrong, 0.0, 0.5))


def ridge_map(x: Float[np.ndarray, "row d"], *, strength: float) -> tuple[Float[np.ndarray, "d row"], Float[np.ndarray, " d"]]:
    """The matrix that takes centred targets to ridge weights, and the centre of the features."""
    centre = x.mean(axis=0)
    left, singular, right = np.linalg.svd(x - centre, full_matrices=False)
    return (right.T * (singular / (singular**2 + strength * len(x)))) @ left.T, centre


def deal(items: Items, rng: np.random.Generator) -> Int[np.ndarray, " row"]:
    """For each row, the row whose answers it gets when groups exchange their answers; a group's rows take turns."""
    groups = np.asarray(items.groups)
    members = [np.flatnonzero(groups == name) for name in dict.fromkeys(items.groups)]
    donor = np.empty(len(groups), dtype=np.intp)
    for own, other in zip(members, rng.permutation(len(members)), strict=True):
        donor[own] = np.resize(members[other], len(own))
    return donor


def search(
    train: Items,
    val: Items,
    *,
    strengths: Sequence[float],
    standardise: bool = True,
    n_permutations: int = 0,
    seed: int = 0,
    progress: Progress = quiet,
) -> Found:
    """Fit on `train`, choose layer and strength by right choices on `val`, and do the same for dealt-out answers."""
    rng = np.random.default_rng([seed, 0])
    fitted, scored = (
        np.stack([np.arange(len(part.groups)), *(deal(part, rng) for _ in range(n_permutations))]) for part in (train, val)
    )
    targets, right, wrong = train.right[fitted], val.right[scored], val.wrong[scored]
    mean = targets.mean(axis=1, keepdims=True)
    best, chosen = np.empty((len(train.features), 1 + n_permutations)), []
    for layer, features in enumerate(train.features):
        spread = moments(features)[1] if standardise else np.ones(features.shape[1])
        accuracies = []
        for strength in sorted(strengths, reverse=True):
            solve, centre = ridge_map(features.astype(np.float64) / spread, strength=strength)
            held = val.features[layer].astype(np.float64) / spread - centre
            accuracies.append(nearer(held @ solve @ (targets - mean) + mean, right, wrong).mean(axis=-1))
            weights = (solve @ (targets[0] - mean[0])) / spread[:, None]
            chosen.append((accuracies[-1][0], layer, strength, weights, mean[0, 0] - centre * spread @ weights))
        best[layer] = np.max(accuracies, axis=0)
        progress("layers", layer + 1, len(train.features))
    _, layer, strength, weights, bias = max(chosen, key=lambda candidate: candidate[0])
    return Found(layer, strength, weights, bias, best[:, 0], best[:, 1:].max(axis=0))

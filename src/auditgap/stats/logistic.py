"""Logistic regression on more rows than comfortably fit: a few passes over the data, in blocks, with next to no memory.

1. A few thousand evenly spaced rows give the curvature of the loss at zero weights. Its Cholesky factor is a change of variables
   in which the loss is nearly round.
2. L-BFGS in those variables. A step is one pass: per block, scores and gradient in the data's own precision, summed in float64.
3. Stop when a Newton step would lower the mean loss by less than `tolerance_nats`. Half the squared gradient in the new variables
   estimates that, so the rule does not depend on the scale of the features.

Source: L-BFGS is D. C. Liu, J. Nocedal, Mathematical Programming 45 (1989) 503-528, in SciPy's implementation; curvature from a
sub-sample is F. Roosta-Khorasani, M. W. Mahoney, Mathematical Programming 174 (2019) 293-326. Joining them is ours.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize
from scipy.special import expit

from auditgap.errors import CannotMeasure, UsageError
from auditgap.stats.checks import two_classes

__all__ = ["LogisticFit", "fit_logistic_streaming"]

Blocks = Callable[[], Iterable[NDArray[np.floating]]]
"""Called once per pass; yields blocks of rows, the same rows in the same order each time."""

BLOCK_BYTES = 4 << 20
"""A block that stays in the processor's cache is read from memory once per pass, not twice."""
SAMPLE_PER_FEATURE = 4
"""Rows per feature in the sub-sample."""


class LogisticFit(NamedTuple):
    """P(label 1 | x) = 1 / (1 + exp(-(weights . x + intercept)))."""

    weights: NDArray[np.float64]
    intercept: float
    n_passes: int
    """How often the data was read."""

    def scores(self, features: NDArray[np.floating]) -> NDArray[np.float64]:
        """The log-odds of label 1, in nats."""
        return np.asarray(features @ self.weights.astype(features.dtype), dtype=np.float64) + self.intercept


def fit_logistic_streaming(
    features: NDArray[np.floating] | Blocks,
    labels: ArrayLike,
    *,
    l2: float,
    tolerance_nats: float = 1e-6,
    max_passes: int = 1000,
) -> LogisticFit:
    """The weights that minimise the mean log loss plus `l2 / 2 * |weights|^2`; the intercept is not penalised.

    `features` is an array with one row per label (a memory map too), or a function that yields it in blocks, once per pass.
    scikit-learn's `LogisticRegression(C)` has the same minimum at `l2 = 1 / (C * n_rows)`.

    Raises:
        UsageError: `l2` is not positive, labels are not 0 and 1, or the rows do not match them or hold NaN or infinity.
        CannotMeasure: no minimum within `max_passes`.
    """
    if not l2 > 0:
        raise UsageError(f"expected l2 above 0, got {l2}; without it, separable classes have no minimum")
    truth = two_classes(labels)
    blocks = features if callable(features) else _cut(features)
    sample = _every(max(1, len(truth) // (SAMPLE_PER_FEATURE * _width(blocks))), blocks)
    factor = _factor(sample, float(truth.mean()), l2)
    objective = _Objective(blocks, truth, l2, factor)
    enough = StopIteration("another Newton step would gain less than the tolerance")

    def stop_when_flat(_rotated: NDArray[np.float64]) -> None:
        if objective.gain_nats < tolerance_nats:
            raise enough

    start = np.zeros(len(factor))
    found = minimize(
        objective,
        start,
        jac=True,
        method="L-BFGS-B",
        callback=stop_when_flat,
        options={"maxfun": max_passes, "maxiter": max_passes, "ftol": 0.0, "gtol": 0.0},
    )
    if not np.array_equal(objective.at, found.x):
        objective(found.x)
    if not objective.gain_nats < tolerance_nats:
        raise CannotMeasure(
            f"expected a minimum to {tolerance_nats:g} nats, got within {objective.gain_nats:.3g} after {objective.n_passes} "
            f"passes ({found.message}); raise l2 (now {l2:g}), max_passes or tolerance_nats"
        )
    weights = objective.weights(found.x)
    return LogisticFit(weights[:-1], float(weights[-1]), objective.n_passes)


class _Objective:
    """Mean loss and gradient in the variables in which the loss is nearly round."""

    def __init__(self, blocks: Blocks, truth: NDArray[np.int64], l2: float, factor: NDArray[np.float64]) -> None:
        self._blocks, self._truth, self._l2, self._factor = blocks, truth, l2, factor
        self.n_passes = 0
        self.at = np.full(len(factor), np.nan)
        """The last point."""
        self.gain_nats = np.inf
        """What a Newton step from there would gain."""

    def weights(self, rotated: NDArray[np.float64]) -> NDArray[np.float64]:
        """The weights, intercept last."""
        return solve_triangular(self._factor, rotated, lower=True, trans=1)

    def __call__(self, rotated: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = self.weights(rotated)
        total, gradient, n = 0.0, np.zeros_like(weights), 0
        with np.errstate(invalid="ignore", over="ignore"):
            for block in self._blocks():
                label = self._truth[n : n + len(block)]
                if block.shape != (len(label), len(weights) - 1):
                    raise UsageError(
                        f"expected {len(self._truth)} rows of width {len(weights) - 1}, got a block {block.shape} at row {n}"
                    )
                score = block @ weights[:-1].astype(block.dtype) + block.dtype.type(weights[-1])
                total += float(np.logaddexp(0, score).sum(dtype=np.float64) - score[label == 1].sum(dtype=np.float64))
                error = expit(score) - label.astype(score.dtype)
                gradient[:-1] += error @ block
                gradient[-1] += error.sum(dtype=np.float64)
                n += len(block)
        if n != len(self._truth):
            raise UsageError(f"expected one row per label, {len(self._truth)}, got {n}")
        if not np.isfinite(total):
            raise UsageError("expected finite features, got NaN or infinity; find where it arises, do not drop it")
        gradient /= n
        gradient[:-1] += self._l2 * weights[:-1]
        slope = solve_triangular(self._factor, gradient, lower=True)
        self.n_passes += 1
        self.at = rotated.copy()
        self.gain_nats = float(slope @ slope) / 2
        return total / n + self._l2 / 2 * float(weights[:-1] @ weights[:-1]), slope


def _cut(features: NDArray[np.floating]) -> Blocks:
    if features.ndim != 2 or not len(features) or features.dtype.kind != "f":
        raise UsageError(f"expected rows of floating-point features, got shape {features.shape} of {features.dtype}")
    n_rows = max(1, BLOCK_BYTES // (features.itemsize * features.shape[1]))

    def blocks() -> Iterator[NDArray[np.floating]]:
        for start in range(0, len(features), n_rows):
            yield features[start : start + n_rows]

    return blocks


def _width(blocks: Blocks) -> int:
    for block in blocks():
        return block.shape[1]
    raise UsageError("expected blocks of rows, got none")


def _every(step: int, blocks: Blocks) -> NDArray[np.floating]:
    """Every `step`-th row."""
    kept, skip = [], 0
    for block in blocks():
        kept.append(block[skip::step])
        skip = (skip - len(block)) % step
    return np.concatenate(kept)


def _factor(sample: NDArray[np.floating], base_rate: float, l2: float) -> NDArray[np.float64]:
    """Lower Cholesky factor of the curvature at zero weights, intercept last."""
    width = sample.shape[1]
    curvature = np.empty((width + 1, width + 1))
    curvature[:-1, :-1] = sample.T @ sample
    curvature[-1, :-1] = curvature[:-1, -1] = sample.sum(0, dtype=np.float64)
    curvature[-1, -1] = len(sample)
    curvature *= base_rate * (1 - base_rate) / len(sample)
    diagonal = np.einsum("ii->i", curvature)
    diagonal[:-1] += l2
    diagonal *= 1 + 1e-6  # a float32 product is singular to 1e-7
    if not np.isfinite(curvature).all():
        raise UsageError("expected finite features, got NaN or infinity; find where it arises, do not drop it")
    return cholesky(curvature, lower=True, overwrite_a=True)

"""Fitting a read-out to labels: every method, for many labellings at once, because a null needs a hundred of them.

| method | weights on standardised activations |
|---|---|
| `logistic` | minimise the log loss plus an L2 penalty |
| `difference-in-means` | mean of label 1 minus mean of label 0 |
| `lda` | the same, after the inverse of the shrunk covariance within the classes |
| `attention-pooled` | logistic on a softmax-weighted mean of the tokens, the weighting learned with it (`attention.py`) |

A row is one vector, or all tokens of a prompt. In the second case the first three fit each token as a row of its prompt's label,
in passes over blocks, so that memory does not grow with the number of tokens.

Source: G. Alain, Y. Bengio, arXiv:1610.01644 (probes); S. Marks, M. Tegmark, arXiv:2310.06824 (difference in means, LDA);
O. Ledoit, M. Wolf, J. Multivariate Analysis 88 (2004) 365-411 (shrinkage).
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import minimize
from scipy.special import expit

from auditgap.instruments.probing.attention import fit_attention
from auditgap.instruments.probing.readouts import Readouts
from auditgap.instruments.probing.tokens import Tokens

__all__ = ["Method", "fit", "fit_lda", "fit_logistic", "fit_mean_difference", "has_strength", "moments"]

Method = Literal["logistic", "difference-in-means", "lda", "attention-pooled"]

Blocks = Callable[[], Iterator[tuple[np.ndarray, np.ndarray]]]
"""Called once per pass; yields standardised vectors and the row that each belongs to."""


def has_strength(method: Method) -> bool:
    """Whether there is an L2 penalty to choose."""
    return method in ("logistic", "attention-pooled")


def fit(
    features: Float[np.ndarray, "row d"] | Tokens,
    labels: Int[np.ndarray, "labelling row"],
    *,
    method: Method,
    strengths: Sequence[float],
    standardise: bool = True,
) -> Readouts:
    """The read-outs (strength, labelling) of a method, in the units of the activations; without a penalty there is one strength.

    Raises:
        UsageError: `attention-pooled` is to be fitted on one vector a row.
    """
    centre, spread = moments(features)
    if not standardise:
        spread = np.ones_like(spread)
    if method == "attention-pooled":
        fitted = fit_attention(features, labels, centre=centre, spread=spread, strengths=strengths)
    elif method == "logistic" and isinstance(features, Tokens):
        fitted = Readouts(*_fit_logistic_streaming(_blocks(features, centre, spread), labels, strengths=strengths))
    elif method == "logistic":
        fitted = Readouts(*fit_logistic((features - centre) / spread, labels, strengths=strengths))
    elif method == "lda" and not isinstance(features, Tokens) and len(features) < len(centre):
        weights, bias = _fit_lda_in_span((features - centre) / spread, labels)
        fitted = Readouts(weights[None], bias[None])
    else:
        blocks = _blocks(features, centre, spread)
        weights, bias = (fit_mean_difference if method == "difference-in-means" else fit_lda)(blocks, labels)
        fitted = Readouts(weights[None], bias[None])
    weights = fitted.weights / spread
    return Readouts(weights, fitted.bias - weights @ centre, None if fitted.query is None else fitted.query / spread)


def moments(features: Float[np.ndarray, "row d"] | Tokens) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, " d"]]:
    """Mean and standard deviation of each feature over rows, or over all their tokens; 1 where it does not vary."""
    if not isinstance(features, Tokens):
        spread = features.std(axis=0, dtype=np.float64)
        return features.mean(axis=0, dtype=np.float64), np.where(spread > 0.0, spread, 1.0)
    n = int(features.n_tokens.sum())
    centre, variance = np.zeros(features.width), np.zeros(features.width)
    for _, x, real in features.blocks():
        centre += x[real].sum(axis=0, dtype=np.float64) / n
    for _, x, real in features.blocks():
        variance += ((x[real] - centre) ** 2).sum(axis=0) / n
    return centre, np.where(variance > 0.0, np.sqrt(variance), 1.0)


def _blocks(features: Float[np.ndarray, "row d"] | Tokens, centre: np.ndarray, spread: np.ndarray) -> Blocks:
    def blocks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        if not isinstance(features, Tokens):
            yield (features - centre) / spread, np.arange(len(features))
            return
        for rows, x, real in features.blocks():
            yield (x[real] - centre) / spread, np.repeat(np.arange(rows.start, rows.stop), real.sum(axis=1))

    return blocks


class _Classes(NamedTuple):
    """The class means of each labelling."""

    negative: Float[np.ndarray, "labelling d"]
    positive: Float[np.ndarray, "labelling d"]
    share: Float[np.ndarray, " labelling"]
    """Of label 1."""


def _classes(blocks: Blocks, labels: Int[np.ndarray, "labelling row"]) -> _Classes:
    total, positive, n, n_positive = 0.0, 0.0, 0, 0.0
    for z, row in blocks():
        one = labels[:, row].astype(np.float64)
        total, positive = total + z.sum(axis=0), positive + one @ z
        n, n_positive = n + len(z), n_positive + one.sum(axis=1)
    n_positive = np.asarray(n_positive)
    return _Classes((total - positive) / (n - n_positive)[:, None], positive / n_positive[:, None], n_positive / n)


def fit_mean_difference(
    blocks: Blocks, labels: Int[np.ndarray, "labelling row"]
) -> tuple[Float[np.ndarray, "labelling d"], Float[np.ndarray, " labelling"]]:
    """mean(label 1) - mean(label 0) for each labelling; the bias puts the boundary half-way between the two means."""
    classes = _classes(blocks, labels)
    weights = classes.positive - classes.negative
    return weights, -(weights * (classes.positive + classes.negative)).sum(axis=1) / 2


def fit_lda(
    blocks: Blocks, labels: Int[np.ndarray, "labelling row"], *, n_features: int | None = None
) -> tuple[Float[np.ndarray, "labelling d"], Float[np.ndarray, " labelling"]]:
    """Linear discriminant analysis for each labelling; a score is the log-odds of label 1 under its model.

    1. One covariance for all labellings, that of all (centred) rows: its Ledoit-Wolf shrinkage a towards the target m I.
    2. Within the classes it is (1 - a) (S - p (1 - p) gap gap^T) + a m I: a rank of difference, so one factorisation serves every
       labelling (Sherman-Morrison).

    It is scikit-learn's `LinearDiscriminantAnalysis(solver="lsqr")` with that covariance as its `covariance_estimator`. Where the
    rows are given in coordinates of their own span, `n_features` says how wide they were.
    """
    n, scatter, fourth = 0, 0.0, 0.0
    for z, _ in blocks():
        n, scatter, fourth = n + len(z), scatter + z.T @ z, fourth + float(((z**2).sum(axis=1) ** 2).sum())
    covariance = np.asarray(scatter) / n
    width = n_features or len(covariance)
    shrinkage = _ledoit_wolf(covariance, fourth / n, n_rows=n, n_features=width)
    target = float(np.trace(covariance)) / width
    mixed = (1 - shrinkage) * covariance + (shrinkage * target + 1e-12 * (target or 1.0)) * np.eye(len(covariance))
    classes = _classes(blocks, labels)
    gap, p = classes.positive - classes.negative, classes.share
    solved = cho_solve(cho_factor(mixed), gap.T).T
    weights = solved / (1 - (1 - shrinkage) * p * (1 - p) * (solved * gap).sum(axis=1))[:, None]
    return weights, np.log(p / (1 - p)) - (weights * (classes.positive + classes.negative)).sum(axis=1) / 2


def _fit_lda_in_span(
    z: Float[np.ndarray, "row d"], labels: Int[np.ndarray, "labelling row"]
) -> tuple[Float[np.ndarray, "labelling d"], Float[np.ndarray, " labelling"]]:
    """The same where rows are fewer than features: the gap lies in the span of the rows, which is smaller."""
    basis = np.linalg.svd(z.astype(np.float64), full_matrices=False)[2]
    inside = (z @ basis.T, np.arange(len(z)))
    weights, bias = fit_lda(lambda: iter([inside]), labels, n_features=z.shape[1])
    return weights @ basis, bias


def _ledoit_wolf(covariance: Float[np.ndarray, "d d"], fourth: float, *, n_rows: int, n_features: int) -> float:
    """How far to shrink towards the multiple of the identity with the same trace; `fourth` is the mean of |x|^4."""
    squares = float((covariance**2).sum())
    distance = squares - float(np.trace(covariance)) ** 2 / n_features
    return min(1.0, max(0.0, fourth - squares) / n_rows / distance) if distance > 0 else 1.0


def fit_logistic(
    z: Float[np.ndarray, "row d"], labels: Int[np.ndarray, "labelling row"], *, strengths: Sequence[float]
) -> tuple[Float[np.ndarray, "strength labelling d"], Float[np.ndarray, "strength labelling"]]:
    """L2 logistic regression for each strength and labelling: the optimum of scikit-learn's `LogisticRegression(C=strength)`.

    All labellings are fitted together: the rows are rotated into their own span, where the optimum lies; each axis is scaled by
    the bound p(1-p) <= 1/4 on its curvature; L-BFGS minimises the sum of the objectives, which share no variable.

    Source: D. Boehning, B. G. Lindsay, Ann. Inst. Statist. Math. 40 (1988) 641-663, for the bound.
    """
    left, singular, right = np.linalg.svd(z.astype(np.float64), full_matrices=False)
    rotated = (left * singular, np.arange(len(z)))
    return _minimise(lambda: iter([rotated]), singular**2, right, len(z), labels, strengths)


def _fit_logistic_streaming(
    blocks: Blocks, labels: Int[np.ndarray, "labelling row"], *, strengths: Sequence[float]
) -> tuple[Float[np.ndarray, "strength labelling d"], Float[np.ndarray, "strength labelling"]]:
    """The same optimum from blocks, one pass for each step: the rotation comes from the sum of squares."""
    n, scatter = 0, 0.0
    for z, _ in blocks():
        n, scatter = n + len(z), scatter + z.T @ z
    squares, vectors = np.linalg.eigh(np.asarray(scatter))
    return _minimise(
        lambda: ((z @ vectors, row) for z, row in blocks()), np.maximum(squares, 0.0), vectors.T, n, labels, strengths
    )


def _minimise(
    rotated: Blocks,
    squares: Float[np.ndarray, " axis"],
    basis: Float[np.ndarray, "axis d"],
    n: int,
    labels: Int[np.ndarray, "labelling row"],
    strengths: Sequence[float],
) -> tuple[Float[np.ndarray, "strength labelling d"], Float[np.ndarray, "strength labelling"]]:
    """The optima, given `n` vectors in coordinates of `basis`, along whose axes they have these sums of squares."""
    sign = 2.0 * labels - 1.0
    weights, biases = [], []
    for c in strengths:
        scale = np.append(1 / np.sqrt(1 + c * squares / 4), 1 / np.sqrt(c * n / 4))
        penalty = np.append(scale[:-1] ** 2, 0.0)  # the intercept is free

        def objective(flat: np.ndarray, c: float = c, scale: np.ndarray = scale, penalty: np.ndarray = penalty):
            v = flat.reshape(len(labels), -1)
            loss, gradient = (penalty * v**2).sum() / 2, penalty * v
            for x, row in rotated():
                design = np.column_stack([x, np.ones(len(x))]) * scale
                margin = sign[:, row] * (v @ design.T)
                loss += c * np.logaddexp(0.0, -margin).sum()
                gradient -= c * (sign[:, row] * expit(-margin)) @ design
            return loss, gradient.ravel()

        start = np.zeros(len(labels) * len(scale))
        options = {"maxiter": 500, "maxfun": 1000, "ftol": 1e-13, "gtol": 1e-6 * min(1.0, c * n)}
        v = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x.reshape(len(labels), -1) * scale
        weights.append(v[:, :-1] @ basis)
        biases.append(v[:, -1])
    return np.stack(weights), np.stack(biases)

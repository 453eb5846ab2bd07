"""What a probe computes: a score for each prompt, from one vector or from all its tokens.

linear            weights . x + bias             over several tokens: the mean of their scores
attention-pooled  sum_t a_t (weights . x_t) + bias,   a = softmax(query . x_t)
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import softmax

from auditgap.errors import UsageError
from auditgap.instruments.probing.tokens import Tokens, token_means

__all__ = ["Readouts", "read"]


class Readouts(NamedTuple):
    """One read-out for each strength and labelling, in the units of the activations."""

    weights: Float[np.ndarray, "*many d"]
    bias: Float[np.ndarray, "*many"]
    query: Float[np.ndarray, "*many d"] | None = None
    """What the tokens are weighted by; None if all count alike."""

    def scores(self, features: Float[np.ndarray, "row d"] | Tokens) -> Float[np.ndarray, "*many row"]:
        """The score of each row."""
        return read(features, self.weights, self.bias, self.query)


def read(
    features: Float[np.ndarray, "row d"] | Tokens,
    weights: Float[np.ndarray, "*many d"],
    bias: Float[np.ndarray, "*many"],
    query: Float[np.ndarray, "*many d"] | None,
) -> Float[np.ndarray, "*many row"]:
    """The scores of read-outs on rows.

    Raises:
        UsageError: an attention-pooled read-out meets one vector a row.
    """
    if query is None:
        return weights @ token_means(features).T.astype(np.float64) + bias[..., None]
    if not isinstance(features, Tokens):
        raise UsageError("an attention-pooled probe reads every token of a prompt, got one vector a prompt; read tokens")
    scores = np.empty((*bias.shape, len(features)))
    for rows, x, real in features.blocks(bias.size):
        scores[..., rows] = _attended(x.astype(np.float64), real, weights, query)
    return scores + bias[..., None]


def _attended(
    x: Float[np.ndarray, "row pos d"],
    real: Bool[np.ndarray, "row pos"],
    weights: Float[np.ndarray, "*many d"],
    query: Float[np.ndarray, "*many d"],
) -> Float[np.ndarray, "*many row"]:
    flat = x.reshape(-1, x.shape[-1]).T
    shape = (*weights.shape[:-1], *real.shape)
    pattern = softmax(np.where(real, (query @ flat).reshape(shape), -np.inf), axis=-1)
    return (pattern * (weights @ flat).reshape(shape) * real).sum(axis=-1)

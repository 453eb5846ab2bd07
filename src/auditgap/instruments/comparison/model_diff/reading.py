"""What two models do with the same prompts, brought down to one number per group of prompts."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from auditgap.data import Prompt
from auditgap.instruments.comparison.model_diff.drift import Drift, drift
from auditgap.models import Model, Positions, capture, kl_nats, next_logits

__all__ = ["Comparison", "Reading", "by_group", "compare", "read"]

CHUNK = 64  # prompts whose logits are widened to float64 at a time


class Reading(NamedTuple):
    """One model on all prompts."""

    logits: Float[Tensor, "prompt vocab"]
    stream: Float[np.ndarray, "layer prompt d"]
    """Residual stream after every block."""


class Comparison(NamedTuple):
    """How another model differs from the base; each group of prompts counts once."""

    kl: Float[np.ndarray, " group"]
    """KL(base || other) of the next token, nats."""
    reverse_kl: Float[np.ndarray, " group"]
    changed: Float[np.ndarray, " prompt"]
    """1 where the most likely next token is another one."""
    prompt_kl: Float[np.ndarray, " prompt"]
    drift: Drift
    """Per layer and group."""
    delta: Float[np.ndarray, "layer group d"]
    """Mean of h_other - h_base over the prompts of each group."""

    def statistics(self) -> Float[np.ndarray, " statistic"]:
        """Mean KL, then relative drift of each layer: what is held against noise."""
        return np.array([self.kl.mean(), *self.drift.relative(np.arange(len(self.kl)))])


def read(model: Model, prompts: Sequence[Prompt], *, position: Positions, batch_size: int) -> Reading:
    """Next-token logits and residual stream of every prompt."""
    sites = [f"resid_post.{layer}" for layer in range(model.n_layers)]
    found = capture(model, prompts, sites, positions=position, batch_size=batch_size)
    return Reading(
        next_logits(model, prompts, batch_size=batch_size), np.stack([found[name].numpy() for name in sites]).astype(np.float32)
    )


def compare(base: Reading, other: Reading, codes: Int[np.ndarray, " prompt"]) -> Comparison:
    """The difference per group; `codes` numbers each prompt's group from 0."""
    moved = drift(base.stream, other.stream)
    kl, reverse = (_kl(a, b) for a, b in ((base.logits, other.logits), (other.logits, base.logits)))
    grouped = (by_group(part.T, codes).T for part in moved)
    delta = np.stack([by_group((o - b).astype(np.float64), codes) for b, o in zip(base.stream, other.stream, strict=True)])
    changed = (base.logits.argmax(-1) != other.logits.argmax(-1)).double().numpy()
    return Comparison(by_group(kl, codes), by_group(reverse, codes), changed, kl, Drift(*grouped), delta)


def by_group(values: Float[np.ndarray, "prompt ..."], codes: Int[np.ndarray, " prompt"]) -> Float[np.ndarray, "group ..."]:
    """Mean of each group's rows."""
    total = np.zeros((codes.max() + 1, *values.shape[1:]))
    np.add.at(total, codes, values)
    return total / np.bincount(codes).reshape(-1, *[1] * (values.ndim - 1))


def _kl(p: Float[Tensor, "prompt vocab"], q: Float[Tensor, "prompt vocab"]) -> Float[np.ndarray, " prompt"]:
    """KL(p || q) per prompt; rounding below 0 is cut off."""
    parts = [kl_nats(a, b) for a, b in zip(p.split(CHUNK), q.split(CHUNK), strict=True)]
    return np.maximum(torch.cat(parts).numpy(), 0.0)

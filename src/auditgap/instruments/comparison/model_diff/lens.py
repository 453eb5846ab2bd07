"""What the mean difference between the two models says in tokens, and whether half of the prompts would say it again.

1. delta = mean over groups of h_subject - h_base at one layer, last token.
2. Logit lens: the last block's output is replaced by delta, and the base's own final norm and unembedding read it; what they
   say to a zero vector is taken off.
3. Split half: the groups are parted at random; the share of top tokens that both halves name.
4. The floor: model labels exchanged per group (the sign of its difference drawn at random), the same halves, the same share.

Source: difference lens: arXiv:2510.13900; logit lens: nostalgebraist (2020). Exchange of model labels and split half are ours.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from auditgap.data import Prompt
from auditgap.instruments.comparison.model_diff.drift import mean_consistency
from auditgap.models import Model, editing, replace, tokenize

__all__ = ["Lens", "consistencies", "exchanged_signs", "logit_lens", "read_out"]

TOP_TOKENS = 10


class Lens(NamedTuple):
    """What the mean difference reads as."""

    tokens: list[str]
    """The tokens it raises most."""
    overlap: float
    """Share of top tokens that two halves of the groups have in common."""
    null_overlaps: Float[np.ndarray, " exchange"]
    """The same with model labels exchanged per group."""


def logit_lens(model: Model, vectors: Float[Tensor, "row d_model"], prompt: Prompt) -> Float[Tensor, "row vocab"]:
    """What the model's final norm and unembedding make of each vector, less what they make of zero.

    `prompt` only carries the vectors through the forward pass: nothing of it reaches the last block's output.
    """
    tokens = tokenize(model, [prompt])
    rows = torch.cat([torch.zeros_like(vectors[:1]), vectors])[:, None]
    batch = {name: x.expand(len(rows), -1) for name, x in tokens._asdict().items()}
    with torch.inference_mode(), editing(model, {f"resid_post.{model.n_layers - 1}": replace(rows)}):
        logits = model.hf(**batch, use_cache=False, logits_to_keep=1).logits[:, -1].float().cpu()
    return logits[1:] - logits[:1]


def exchanged_signs(n_draws: int, n_groups: int, *, seed: int) -> Float[np.ndarray, "exchange group"]:
    """Which of the two models each group's activations are said to come from, at random: 1 or -1."""
    return np.random.default_rng([seed, 1]).choice([-1.0, 1.0], size=(n_draws, n_groups))


def consistencies(
    delta: Float[np.ndarray, "layer group d"], signs: Float[np.ndarray, "exchange group"]
) -> tuple[Float[np.ndarray, " layer"], Float[np.ndarray, " exchange"]]:
    """How consistent each layer's difference is over groups, and the largest consistency of any layer for each exchange."""
    observed = np.array([mean_consistency(layer) for layer in delta])
    size = np.maximum((delta**2).sum(-1).mean(-1), np.finfo(np.float64).tiny)
    means = np.einsum("sg,lgd->sld", signs, delta, optimize=True) / delta.shape[1]
    return observed, ((means**2).sum(-1) / size).max(axis=1)


def read_out(
    base: Model,
    delta: Float[np.ndarray, "group d"],
    signs: Float[np.ndarray, "exchange group"],
    *,
    prompt: Prompt,
    seed: int,
) -> Lens:
    """Top tokens of the mean difference, with split-half agreement and its floor."""
    order = np.random.default_rng([seed, 2]).permutation(len(delta))
    halves = np.zeros((2, len(delta)))
    halves[0, order[: len(delta) // 2]], halves[1, order[len(delta) // 2 :]] = 1.0, 1.0
    weights = np.vstack([np.ones((1, len(delta))), halves, *(halves * draw for draw in signs)])
    means = weights @ delta / np.abs(weights).sum(1, keepdims=True)
    top = _top_tokens(base, means, prompt)
    overlaps = [_overlap(top[i], top[i + 1]) for i in range(1, len(top), 2)]
    tokens: Sequence[str] = base.tokenizer.convert_ids_to_tokens(top[0].tolist())  # type: ignore[assignment]
    return Lens([str(token) for token in tokens], overlaps[0], np.array(overlaps[1:]))


def _top_tokens(base: Model, vectors: Float[np.ndarray, "row d"], prompt: Prompt) -> Int[np.ndarray, "row k"]:
    k = min(TOP_TOKENS, base.n_embeddings)
    chunks = torch.from_numpy(vectors).float().split(64)
    return np.concatenate([logit_lens(base, chunk, prompt).topk(k).indices.numpy() for chunk in chunks])


def _overlap(one: Int[np.ndarray, " k"], other: Int[np.ndarray, " k"]) -> float:
    return len(np.intersect1d(one, other)) / len(one)

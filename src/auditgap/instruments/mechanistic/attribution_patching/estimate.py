"""Three estimates of what patching each node would do, from gradients alone.

1. `atp`: (donor - recipient) . dm/dnode, at the recipient; queries and keys with the QK fix.
2. `integrated-gradients`: the same with the gradient averaged over the way between the two embeddings.
3. `atp*`: `atp` once for each layer whose writes pass no gradient (GradDrop), so that a direct and an indirect effect that cancel
   each other do so in some passes only; the score is the mean size over the passes that a node takes part in.

All are shares of the pair's gap. Exact where everything after the node is linear.

Source: N. Nanda (2023), attribution patching; arXiv:2403.00745; arXiv:2403.17806.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from auditgap.errors import CannotMeasure
from auditgap.instruments.mechanistic.attribution_patching.attention import (
    Attention,
    key_effects,
    query_effects,
    read_attention,
)
from auditgap.instruments.mechanistic.attribution_patching.nodes import Kind, Layout, logit_difference
from auditgap.instruments.patching.pairs import Pairs
from auditgap.instruments.patching.runs import unpadded
from auditgap.models import Model, capture_tokens
from auditgap.models.gradients import integrated_gradients, site_gradients
from auditgap.models.patch import Direction
from auditgap.progress import Progress, quiet

__all__ = ["Estimates", "Method", "estimate"]

Method = Literal["atp", "atp*", "integrated-gradients"]
ATTENTION: tuple[Kind, ...] = ("z", "q", "k")
START = "resid_pre.0"


class Estimates(NamedTuple):
    """Estimated effects of every node on every pair, as shares of the pair's gap."""

    passes: Float[np.ndarray, "pass pair node"]
    """One pass, or for `atp*` one for each dropped layer."""
    weights: Float[np.ndarray, " node"]
    """What the sum over passes is multiplied by: 1 / the number of passes that a node takes part in."""
    completeness: Float[np.ndarray, " pair"]
    """Sum over all positions of the effects of the first layer's input: 1 if the gradient explains the whole gap."""

    @property
    def signed(self) -> bool:
        """Whether an effect has a sign: a mean of sizes has none."""
        return len(self.passes) == 1

    def scores(self, rows: np.ndarray | slice = slice(None)) -> Float[np.ndarray, " node"]:
        """The estimated effect of each node over these pairs; for `atp*` its mean size."""
        means = self.passes[:, rows].mean(axis=1)
        return means[0] if self.signed else np.abs(means).sum(axis=0) * self.weights


class _Batch(NamedTuple):
    """Some pairs of one length: what every estimate multiplies its gradients by."""

    moved: dict[str, Float[Tensor, "batch pos d"]]
    """Donor less recipient."""
    attention: list[Attention]
    """Of the recipient; empty if no node needs it."""
    donor: list[Attention]


def estimate(
    model: Model,
    pairs: Pairs,
    layout: Layout,
    gaps: Float[np.ndarray, " pair"],
    *,
    methods: Sequence[Method],
    direction: Direction,
    n_steps: int,
    batch_size: int,
    progress: Progress = quiet,
) -> dict[Method, Estimates]:
    """The effects of all nodes on all pairs, by each method.

    Raises:
        CannotMeasure: `atp*` on a model of one layer.
        SiteError: a gradient is not finite, or attention cannot be recomputed.
    """
    if "atp*" in methods and model.n_layers < 2:
        raise CannotMeasure("atp* drops one layer at a time; a model of one layer has none left: use atp")
    n, n_nodes, sites = len(pairs.rows), len(layout.nodes), _sites(layout)
    n_passes: dict[Method, int] = {method: model.n_layers if method == "atp*" else 1 for method in methods}
    passes: dict[Method, np.ndarray] = {method: np.empty((n_passes[method], n, n_nodes)) for method in methods}
    whole = {method: np.empty(n) for method in methods}
    n_done = 0
    for rows in pairs.by_length(batch_size):
        progress("gradients", n_done, n)
        n_done += len(rows)
        part = pairs.take(rows)
        ends = torch.stack(part.corrupted), torch.stack(part.clean)
        recipient, donor = ends if direction == "denoising" else ends[::-1]
        batch, metric = _read(model, recipient, donor, layout, sites), logit_difference(part)
        per_share = gaps[rows] if direction == "denoising" else -gaps[rows]
        for method in methods:
            for step in range(n_passes[method]):
                if method == "integrated-gradients":
                    gradients = integrated_gradients(model, recipient, donor, sites, metric=metric, n_steps=n_steps)
                else:
                    dropped = step if method == "atp*" else None
                    gradients = site_gradients(model, recipient, sites, metric=metric, dropped=dropped)
                values = layout.pick(_products(model, batch, gradients, layout), rows)
                passes[method][step, rows] = values / per_share[:, None]
                whole[method][rows] = (batch.moved[START] * gradients[START]).sum((1, 2)).double().numpy() / per_share
    in_stream = np.array([node.kind == "resid_pre" for node in layout.nodes])
    return {
        method: Estimates(values, 1 / np.where(in_stream | (len(values) == 1), len(values), len(values) - 1), whole[method])
        for method, values in passes.items()
    }


def _sites(layout: Layout) -> list[str]:
    """Where gradients are needed; the first layer's input always, for completeness."""
    kinds = dict.fromkeys("z" if kind in ATTENTION else kind for kind in layout.heads)
    return list(dict.fromkeys([START, *(f"{kind}.{layer}" for layer in layout.layers for kind in kinds)]))


def _read(model: Model, recipient: Tensor, donor: Tensor, layout: Layout, sites: list[str]) -> _Batch:
    runs = [capture_tokens(model, unpadded(model, ids), sites) for ids in (recipient, donor)]
    attention = [read_attention(model, ids) if {"q", "k"} & set(layout.heads) else [] for ids in (recipient, donor)]
    return _Batch({site: runs[1][site] - runs[0][site] for site in sites}, *attention)


def _products(
    model: Model, batch: _Batch, gradients: dict[str, Tensor], layout: Layout
) -> dict[tuple[Kind, int], Float[Tensor, "batch pos head"]]:
    """What each node's change is worth, at every position."""
    found: dict[tuple[Kind, int], Tensor] = {}
    for kind, n_heads in layout.heads.items():
        for layer in layout.layers:
            site = f"{'z' if kind in ATTENTION else kind}.{layer}"
            by_head = gradients[site].unflatten(-1, (model.n_heads if kind in ATTENTION else 1, -1)).double()
            if kind == "q":
                found[kind, layer] = query_effects(batch.attention[layer], batch.donor[layer].query, by_head.transpose(1, 2))
            elif kind == "k":
                found[kind, layer] = key_effects(batch.attention[layer], batch.donor[layer].key, by_head.transpose(1, 2))
            else:
                found[kind, layer] = (batch.moved[site].unflatten(-1, (n_heads, -1)) * by_head).sum(-1)
    return found

"""Curves by layer, the map of weight changes, and samples."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from auditgap.data import Prompt, as_text
from auditgap.instruments.comparison.model_diff.reading import Comparison
from auditgap.instruments.comparison.model_diff.weights import Weights
from auditgap.models import Model
from auditgap.records import Curve, Grid, Sample

__all__ = ["drift_curve", "samples", "similarity_curve", "weight_map"]

N_SAMPLES = 6


def drift_curve(seen: Comparison, noise: Float[np.ndarray, "draw statistic"] | None) -> Curve:
    """Drift by layer, with what noise of the same size exceeds in 5 % of draws."""
    y = seen.statistics()[1:]
    limit = () if noise is None else tuple(np.quantile(noise[:, 1:], 0.95, axis=0).tolist())
    return Curve(
        name="drift",
        title="Movement of the residual stream; line: what random changes of the same size exceed in 5 % of draws",
        x_label="layer (resid_post)",
        y_label="share of its size",
        x=tuple(map(float, range(len(y)))),
        y=tuple(y.tolist()),
        reference=limit,
    )


def similarity_curve(cka: Float[np.ndarray, " layer"]) -> tuple[Curve, ...]:
    """Debiased CKA by layer; none where a layer has no value."""
    if np.isnan(cka).any():
        return ()
    return (
        Curve(
            name="cka",
            title="Debiased linear CKA of subject and base",
            x_label="layer (resid_post)",
            y_label="CKA",
            x=tuple(map(float, range(len(cka)))),
            y=tuple(cka.tolist()),
        ),
    )


def weight_map(weights: Weights, layers_path: str, n_layers: int) -> tuple[Grid, ...]:
    """Relative change of every kind of matrix that each layer has; none if no matrix changed."""
    changed = {one.name: one.relative_norm for one in weights.spectra}
    kinds: dict[str, list[float]] = {}
    for name in weights.names:
        path = name.removeprefix(f"{layers_path}.")
        layer, _, kind = path.partition(".")
        if path != name and layer.isdecimal():
            kinds.setdefault(kind.removesuffix(".weight"), []).append(changed.get(name, 0.0))
    rows = {kind: values for kind, values in kinds.items() if len(values) == n_layers}
    if not changed or not rows:
        return ()
    return (
        Grid(
            name="weights",
            title="Relative change of each matrix, ||D|| / ||W||",
            x_label="layer",
            y_label="matrix",
            columns=tuple(map(str, range(n_layers))),
            rows=tuple(rows),
            values=tuple(tuple(values) for values in rows.values()),
        ),
    )


def samples(
    model: Model,
    prompts: Sequence[Prompt],
    before: Float[Tensor, "prompt vocab"],
    after: Float[Tensor, "prompt vocab"],
    seen: Comparison,
    *,
    seed: int,
) -> tuple[Sample, ...]:
    """Prompts drawn at random, with the most likely next token before and after."""
    drawn = np.random.default_rng(seed).choice(len(prompts), size=min(N_SAMPLES, len(prompts)), replace=False)

    def token(logits: Tensor) -> str:
        return repr(model.tokenizer.decode([int(torch.argmax(logits))]))

    return tuple(
        Sample(
            prompt=as_text(prompts[i]),
            output=f"next token {token(after[i])}",
            note=f"base: {token(before[i])}, KL {seen.prompt_kl[i]:.3g} nats",
        )
        for i in sorted(map(int, drawn))
    )

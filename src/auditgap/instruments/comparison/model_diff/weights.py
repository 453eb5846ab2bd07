"""All weight changes of a model put together: which matrices changed, which hold structure, and how much is rounding."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from auditgap.instruments.comparison.model_diff.spectra import (
    Spectrum,
    changes,
    flipped,
    rounded_share,
    signal_rank,
    spectra,
    structure_p,
)
from auditgap.progress import Progress, quiet

__all__ = ["Weights", "compare_weights"]

MAX_RANKED = 3
"""Matrices whose signal rank is computed: those that stand out most from their null."""


class Weights(NamedTuple):
    """How the weights of the subject differ from those of the base."""

    names: tuple[str, ...]
    """Every matrix, changed or not, in the order of the model."""
    n_changed_tensors: int
    """Matrices and vectors (norm gains, biases) in which any entry differs."""
    relative_norm: float
    """||subject - base|| / ||base|| over all weights."""
    rounded_share: float
    """Share of all weights that are those of the base, as they were or rounded to bfloat16, float16, int8 or int4."""
    spectra: tuple[Spectrum, ...]
    """Of the changed matrices, the one that stands out most from its null first, those that were only rounded last."""
    p: Float[np.ndarray, " matrix"]
    """Of structure, in the same order."""
    signal_ranks: tuple[int, ...]
    """Of the first ones, as far as they were not only rounded."""
    planted_rank: int | None
    """Signal rank of a rank-1 change planted in noise of the same norm; None if no matrix changed."""

    @property
    def n_matrices(self) -> int:
        """Matrices of the model."""
        return len(self.names)


def compare_weights(base: nn.Module, subject: nn.Module, *, n_flips: int, seed: int, progress: Progress = quiet) -> Weights:
    """Compare two models with the same parameters, one matrix at a time."""
    found, names = spectra(base, subject, n_flips=n_flips, seed=seed, progress=progress)
    p = structure_p(found) if found else np.zeros(0)
    order = sorted(range(len(found)), key=lambda i: (found[i].rounded, -found[i].largest / found[i].null_largest.mean()))
    found, p = [found[i] for i in order], p[order]
    ranked = {s.name: 0 for s in found[:MAX_RANKED] if not s.rounded}
    planted_rank = None
    for name, _, d in changes(base, subject):
        if name in ranked:
            ranked[name] = signal_rank(d, n_flips=n_flips, seed=seed)
        if found and name == found[0].name:
            planted_rank = signal_rank(_planted(d, seed), n_flips=n_flips, seed=seed)
    n_changed, relative_norm, share = _totals(base, subject)
    return Weights(
        names=tuple(names),
        n_changed_tensors=n_changed,
        relative_norm=relative_norm,
        rounded_share=share,
        spectra=tuple(found),
        p=p,
        signal_ranks=tuple(ranked.values()),
        planted_rank=planted_rank,
    )


def _totals(base: nn.Module, subject: nn.Module) -> tuple[int, float, float]:
    n_changed, n_weights, n_rounded, moved, size = 0, 0, 0.0, 0.0, 0.0
    for before, after in zip(base.parameters(), subject.parameters(), strict=True):
        w = before.detach().to(torch.float64)
        d = after.detach().to(before.device, torch.float64) - w
        n_changed += bool(d.any())
        n_weights += w.numel()
        n_rounded += (rounded_share(w, w + d) if d.any() else 1.0) * w.numel()
        moved, size = moved + float(d.square().sum()), size + float(w.square().sum())
    return n_changed, (moved / size) ** 0.5, n_rounded / n_weights


def _planted(d: Float[Tensor, "m n"], seed: int) -> Float[Tensor, "m n"]:
    """The change with random signs, and a random rank-1 change of the same norm on top."""
    generator = torch.Generator(d.device).manual_seed(seed)
    u, v = (torch.randn(size, generator=generator, device=d.device, dtype=d.dtype) for size in d.shape)
    return flipped(d, generator) + d.norm() * torch.outer(u / u.norm(), v / v.norm())

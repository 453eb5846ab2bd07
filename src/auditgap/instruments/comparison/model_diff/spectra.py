"""What training did to each weight matrix, and how much of that is more than noise.

1. D = W_subject - W_base, one matrix at a time, in float64; its singular values.
2. The null: the same changes with the sign of every entry drawn at random. It keeps the size of each entry, hence the norm, the
   empty rows and uneven scales (rounding errors follow the size of the weight), and keeps no direction.
3. D has structure if its largest singular value exceeds those of the null, by max statistic over all matrices.
4. A matrix that is the base's rounded to a shorter format (bfloat16, float16, or the grid of int8 or int4 by rows) is called
   rounded, whatever its spectrum.
5. The signal rank is the number of components to take away before the rest looks like its own null.

For entries of equal size the null's largest value lies at the Marchenko-Pastur edge, sigma (sqrt m + sqrt n).

Source: signs as a null: D. Hong, Y. Sheng, E. Dobriban, Selecting the number of components in PCA via random signflips,
arXiv:2012.02985. Effective rank: O. Roy, M. Vetterli, EUSIPCO 2007. Rounding and the max statistic over matrices are ours.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from auditgap.progress import Progress, quiet
from auditgap.stats import max_statistic_p

__all__ = [
    "Spectrum",
    "changes",
    "effective_rank",
    "flipped",
    "rounded_share",
    "signal_rank",
    "spectra",
    "stable_rank",
    "structure_p",
    "top_energy",
]

TOP_K = 4
MAX_SIGNAL_RANK = 8
GRIDS = (127, 7)
"""Steps on either side of 0 of int8 and int4, symmetric, with a scale for each row."""
STORED_ERROR = 2.0**-8
"""Of bfloat16, in which what was rounded to a grid is often kept: half of its last digit, relative."""


class Spectrum(NamedTuple):
    """The change of one matrix."""

    name: str
    relative_norm: float
    """||D||_F / ||W_base||_F."""
    effective_rank: float
    stable_rank: float
    top_energy: float
    """Share of ||D||_F^2 in the largest 4 singular values."""
    rounded: bool
    """True if the subject's matrix is the base's, rounded to bfloat16, float16, int8 or int4, and nothing else."""
    largest: float
    """Largest singular value."""
    null_largest: Float[np.ndarray, " flip"]
    """The same for each sign-flipped copy."""


def changes(base: nn.Module, subject: nn.Module) -> Iterator[tuple[str, Float[Tensor, "m n"], Float[Tensor, "m n"]]]:
    """Name, base weights and change of every matrix, in float64; stacked experts come one by one."""
    for (name, before), (_, after) in zip(base.named_parameters(), subject.named_parameters(), strict=True):
        if before.ndim < 2:
            continue
        w = before.detach().to(torch.float64).reshape(-1, *before.shape[-2:])
        d = after.detach().to(before.device, torch.float64).reshape(w.shape) - w
        for i in range(len(w)):
            yield (name if len(w) == 1 else f"{name}.{i}"), w[i], d[i]


def spectra(
    base: nn.Module, subject: nn.Module, *, n_flips: int, seed: int, progress: Progress = quiet
) -> tuple[list[Spectrum], list[str]]:
    """The spectrum of every matrix that changed, and the names of all matrices."""
    found, names, total = [], [], sum(p.ndim > 1 for p in base.parameters())
    for index, (name, w, d) in enumerate(changes(base, subject)):
        progress("weights", min(index + 1, total), total)
        names.append(name)
        if not d.any():
            continue
        s = torch.linalg.svdvals(d)
        found.append(
            Spectrum(
                name=name,
                relative_norm=float(d.norm() / w.norm().clamp(min=torch.finfo(torch.float64).tiny)),
                effective_rank=effective_rank(s),
                stable_rank=stable_rank(s),
                top_energy=top_energy(s),
                rounded=rounded_share(w, w + d) == 1.0,
                largest=float(s[0]),
                null_largest=_null(d, n_flips, _generator(d, seed, index)),
            )
        )
    return found, names


def structure_p(found: Sequence[Spectrum]) -> Float[np.ndarray, " matrix"]:
    """For each matrix the chance that sign-flipped changes give so large a singular value in any matrix (max statistic).

    Each matrix is measured against the mean of itself and its flips, so that the real signs are one draw among the others.
    A matrix that was only rounded gets 1.
    """
    values = np.array([[s.largest, *s.null_largest] for s in found])
    ratios = values / values.mean(axis=1, keepdims=True)
    maxima = ratios[:, 1:].max(axis=0)
    return np.array([1.0 if s.rounded else max_statistic_p(float(r), maxima) for s, r in zip(found, ratios[:, 0], strict=True)])


def signal_rank(d: Float[Tensor, "m n"], *, n_flips: int, seed: int) -> int:
    """How many components stand out of the noise in `d`: 0 for noise, 1 for a rank-1 edit under rounding; 8 means at least 8.

    Components are taken away one by one until the rest looks like its own sign-flipped copies. Each one takes some noise with it,
    which the copies spread out again: their largest value is put on the scale of an (m - rank) x (n - rank) matrix.
    """
    (m, n), (u, s, vh) = d.shape, torch.linalg.svd(d, full_matrices=False)
    limit = min(MAX_SIGNAL_RANK, len(s))
    for rank in range(limit):
        rest = d - (u[:, :rank] * s[:rank]) @ vh[:rank]
        left, right = m - rank, n - rank
        scale = (m * n / (left * right)) ** 0.5 * (left**0.5 + right**0.5) / (m**0.5 + n**0.5)
        if s[rank] <= scale * _null(rest, n_flips, _generator(d, seed, rank)).max():
            return rank
    return limit


def effective_rank(s: Float[Tensor, " k"]) -> float:
    """exp of the entropy of the singular values taken as shares: 1 for rank one, k if all k are equal."""
    p = s / s.sum()
    return float(torch.special.entr(p).sum().exp())


def stable_rank(s: Float[Tensor, " k"]) -> float:
    """||D||_F^2 / ||D||_2^2: 1 for rank one; unlike the rank, small components hardly move it."""
    return float(s.square().sum() / s[0].square())


def top_energy(s: Float[Tensor, " k"], k: int = TOP_K) -> float:
    """Share of the squared norm in the `k` largest singular values."""
    return float(s[:k].square().sum() / s.square().sum())


def rounded_share(before: Float[Tensor, "*shape"], after: Float[Tensor, "*shape"]) -> float:
    """Share of entries that are exactly what rounding `before` to bfloat16 (or float16) gives: 1 for a mere change of format.

    It is 1 too where every row lies on the grid of int8 or int4 that its largest entry spans. Rounding has structure of its own
    where rows repeat each other (embeddings of tokens that were never seen), so it is recognised for what it is rather than by
    its spectrum.
    """
    if any(_on_grid(before, after, levels) for levels in GRIDS):
        return 1.0
    rounded = (before.to(dtype).to(before.dtype) for dtype in (torch.bfloat16, torch.float16))
    return max(float((after == one).double().mean()) for one in rounded)


def _on_grid(before: Float[Tensor, "*shape"], after: Float[Tensor, "*shape"], levels: int) -> bool:
    """Whether all of `after` is `before` rounded to `levels` steps on either side of 0, a scale for each row, and then stored."""
    if before.ndim < 2:
        return False
    step = before.abs().amax(-1, keepdim=True) / levels
    rounded = (before / step.clamp(min=torch.finfo(before.dtype).tiny)).round() * step
    return bool(((after - rounded).abs() <= STORED_ERROR * rounded.abs() + 1e-3 * step).all())


def flipped(d: Float[Tensor, "*shape"], generator: torch.Generator) -> Float[Tensor, "*shape"]:
    """`d` with the sign of each entry drawn at random."""
    return torch.where(torch.rand(d.shape, generator=generator, device=d.device) < 0.5, d, -d)


def _null(d: Float[Tensor, "m n"], n_flips: int, generator: torch.Generator) -> Float[np.ndarray, " flip"]:
    return np.array([float(torch.linalg.svdvals(flipped(d, generator))[0]) for _ in range(n_flips)])


def _generator(like: Tensor, seed: int, index: int) -> torch.Generator:
    return torch.Generator(like.device).manual_seed(seed * 1_000_003 + index)

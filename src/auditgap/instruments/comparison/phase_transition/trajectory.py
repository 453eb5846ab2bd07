"""The path of the weights through training, small enough to keep, and where it turns.

1. Sketch: every entry of a matrix is added, with a fixed random sign, into one of `dims` buckets. Sums of products survive
   (relative error about 1 / sqrt(dims)), and the sketch of a difference is the difference of the sketches.
2. Increments d_i from checkpoint i to i + 1; their products G_ij, summed over matrices.
3. The turn at checkpoint c: 1 - cos of the mean increment in the window before c and in the window after it, where every product
   is taken between increments that share no checkpoint and are not neighbours.

Why step 3: noise in single checkpoints makes neighbouring increments point against each other, and a cosine through one
checkpoint, cos(x[c-k] - x[c], x[c+k] - x[c]), tends to +1/2 where noise dominates: a fading learning rate alone then looks like a
turn. Products of increments that share no checkpoint are free of that noise, and of random-walk noise, in expectation.

Source: rotation of adapter vectors as a sign of a transition: arXiv:2506.11613; CountSketch: M. Charikar, K. Chen, M.
Farach-Colton, Theor. Comput. Sci. 312 (2004) 3-15; products of distinct observations as in high-dimensional U-statistics.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn

__all__ = ["MIN_SIGNAL", "products", "signal_share", "sketch", "turns"]

MIN_SIGNAL = 0.1
"""Mean cosine between increments of one window, two or more steps apart, above which they have a direction in common."""


def sketch(hf: nn.Module, *, dims: int, seed: int) -> Float[np.ndarray, "matrix dims"]:
    """All matrices of a model, each in `dims` numbers; the same seed gives comparable sketches."""
    rows = []
    for index, p in enumerate(p for p in hf.parameters() if p.ndim > 1):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        bucket = torch.randint(dims, (p.numel(),), generator=generator)
        sign = torch.randint(2, (p.numel(),), generator=generator).double() * 2 - 1
        row = torch.zeros(dims, dtype=torch.float64)
        row.index_add_(0, bucket, p.detach().cpu().double().reshape(-1) * sign)
        rows.append(row)
    return torch.stack(rows).numpy()


def products(sketches: Float[np.ndarray, "checkpoint matrix dims"]) -> Float[np.ndarray, "matrix step step"]:
    """Inner products of the increments of each matrix."""
    increments = np.diff(sketches, axis=0).transpose(1, 0, 2)
    return increments @ increments.transpose(0, 2, 1)


def turns(gram: Float[np.ndarray, "*draw step step"], window: int) -> Float[np.ndarray, "*draw checkpoint"]:
    """1 - cos of the direction before and after each checkpoint: 0 straight on, 1 a right angle, 2 a return.

    Every increment counts as a direction, whatever its length, so that the learning rate has no say. NaN at the ends, and where
    less than a tenth of the movement in either window is common to it (a plateau, or noise only).
    """
    unit, n = _directions(gram), gram.shape[-1]
    found = np.full((*gram.shape[:-2], n + 1), np.nan)
    for c in range(window, n - window + 1):
        before, after = np.arange(c - window, c), np.arange(c, c + window)
        sizes = np.stack([_apart(unit, side, side) for side in (before, after)])
        seen = (sizes > MIN_SIGNAL).all(0)
        cosine = _apart(unit, before, after) / np.sqrt(np.where(seen, sizes.prod(0), 1.0))
        found[..., c] = np.where(seen, 1 - np.clip(cosine, -1.0, 1.0), np.nan)
    return found


def signal_share(gram: Float[np.ndarray, "step step"], window: int) -> Float[np.ndarray, " step"]:
    """Share of each squared increment that is movement and not noise: its mean cosine with others near it, but not next to it."""
    steps = np.arange(len(gram))
    gap = np.abs(steps[:, None] - steps)
    near = (gap >= 2) & (gap <= window)
    return np.clip((_directions(gram) * near).sum(1) / near.sum(1), 0.0, 1.0)


def _directions(gram: Float[np.ndarray, "*draw step step"]) -> Float[np.ndarray, "*draw step step"]:
    """Cosines between increments; 0 for an increment that does not move."""
    length = np.sqrt(np.diagonal(gram, axis1=-2, axis2=-1))
    scale = np.where(length > 0, 1 / np.where(length > 0, length, 1.0), 0.0)
    return gram * scale[..., :, None] * scale[..., None, :]


def _apart(
    unit: Float[np.ndarray, "*draw step step"], rows: Int[np.ndarray, " window"], columns: Int[np.ndarray, " window"]
) -> Float[np.ndarray, "*draw"]:
    """Mean product over pairs at least two steps apart."""
    apart = np.abs(rows[:, None] - columns) >= 2
    return np.asarray(unit[..., rows[:, None], columns][..., apart].mean(-1))

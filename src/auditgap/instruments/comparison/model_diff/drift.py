"""How far the residual stream of the subject lies from that of its base, on the same prompts, layer by layer.

1. Read the residual stream after every block at one token of each prompt, in both models.
2. Relative drift: ||h_subject - h_base|| / ||h_base|| over all prompts. Also the cosine, the change of norm, and debiased linear
   CKA, which asks whether prompts keep their distances from each other whatever rotation or scale the layer took on.
3. The mean difference over prompts, and how consistent it is: 1 if every prompt moved alike, 1/n if each in a way of its own.

Source: CKA: S. Kornblith et al., arXiv:1905.00414; the unbiased HSIC estimator in it: L. Song et al., JMLR 13 (2012) 1393-1434.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from auditgap.records import Interval

__all__ = ["Drift", "cka_interval", "debiased_cka", "debiased_hsic", "drift", "mean_consistency"]

N_BLOCKS = 20


class Drift(NamedTuple):
    """One row per prompt and layer; sums over drawn prompts give the statistics."""

    moved: Float[np.ndarray, "layer prompt"]
    """||h_subject - h_base||^2."""
    size: Float[np.ndarray, "layer prompt"]
    """||h_base||^2."""
    cosine: Float[np.ndarray, "layer prompt"]
    norm_ratio: Float[np.ndarray, "layer prompt"]
    """||h_subject|| / ||h_base||."""

    def relative(self, drawn: Int[np.ndarray, " drawn"]) -> Float[np.ndarray, " layer"]:
        """Root of the summed squared movement over the summed squared size, of the drawn prompts: 0 if nothing moved."""
        return np.sqrt(self.moved[:, drawn].sum(1) / self.size[:, drawn].sum(1))


def drift(base: Float[np.ndarray, "layer prompt d"], subject: Float[np.ndarray, "layer prompt d"]) -> Drift:
    """Movement of every prompt at every layer."""
    b, s = base.astype(np.float64), subject.astype(np.float64)
    tiny = np.finfo(np.float64).tiny
    sizes, theirs = (np.maximum((x**2).sum(-1), tiny) for x in (b, s))
    cosine = (b * s).sum(-1) / np.sqrt(sizes * theirs)
    return Drift(((s - b) ** 2).sum(-1), sizes, np.clip(cosine, -1.0, 1.0), np.sqrt(theirs / sizes))


def debiased_hsic(k: Float[np.ndarray, "n n"], l: Float[np.ndarray, "n n"]) -> float:  # noqa: E741
    """Unbiased estimate of the Hilbert-Schmidt independence criterion of two kernel matrices; needs at least 4 rows."""
    n = len(k)
    k, l = (x - np.diag(np.diag(x)) for x in (k, l))  # noqa: E741
    trace = (k * l).sum()
    means = k.sum() * l.sum() / ((n - 1) * (n - 2))
    rows = 2 * (k.sum(0) * l.sum(0)).sum() / (n - 2)
    return float((trace + means - rows) / (n * (n - 3)))


def debiased_cka(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n e"]) -> float:
    """Similarity of two sets of representations of the same prompts: 1 if equal up to rotation and scale, about 0 if unrelated.

    The plain estimate tends to 1 for unrelated data when prompts are fewer than dimensions; this one does not. NaN where one
    set does not vary.
    """
    centred = [a.astype(np.float64) - a.mean(0, dtype=np.float64) for a in (x, y)]
    k, l = (a @ a.T for a in centred)  # noqa: E741
    scale = debiased_hsic(k, k) * debiased_hsic(l, l)
    return debiased_hsic(k, l) / scale**0.5 if scale > 0 else float("nan")


def cka_interval(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "n e"], codes: Int[np.ndarray, " n"], *, seed: int
) -> Interval:
    """95 % jackknife interval over up to 20 blocks of groups; in a bootstrap a prompt drawn twice would resemble itself."""
    order = np.random.default_rng([seed, 4]).permutation(codes.max() + 1)
    blocks = [np.isin(codes, block) for block in np.array_split(order, min(N_BLOCKS, len(order)))]
    left_out = np.array([debiased_cka(x[~block], y[~block]) for block in blocks])
    n, value = len(blocks), debiased_cka(x, y)
    error = np.sqrt((n - 1) / n * ((left_out - left_out.mean()) ** 2).sum())
    if not np.isfinite(value + error):
        return Interval(low=-1.0, high=1.0, level=0.95, method="none")
    return Interval(low=float(value - 1.96 * error), high=float(value + 1.96 * error), level=0.95, method="cluster-jackknife")


def mean_consistency(delta: Float[np.ndarray, "group d"]) -> float:
    """||mean||^2 / mean ||.||^2 of the differences: 1 if every group moved alike, about 1/n if they moved at random."""
    size = (delta**2).sum(-1).mean()
    return float((delta.mean(0) ** 2).sum() / size) if size > 0 else 0.0

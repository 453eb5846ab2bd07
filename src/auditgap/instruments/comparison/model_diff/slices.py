"""Which slices of the data moved most, and whether a search over slices would find as much by chance.

1. A slice is a split, in which groups are the units; or a group, in which its rows are.
2. Its statistic: (mean KL of the slice - mean of all) / (standard deviation of all / sqrt(units)).
3. The null: units dealt out to the slices at random; the largest statistic of any slice, each time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from auditgap.records import Interval
from auditgap.stats import cluster_bootstrap, max_statistic_p

__all__ = ["Slice", "moved_most"]

MIN_UNITS = 3


class Slice(NamedTuple):
    """One slice of the data."""

    name: str
    n_units: int
    kl_nats: float
    interval: Interval
    p: float
    """Chance that any slice stands out as much when units are dealt out at random."""


def moved_most(
    kl_nats: Float[np.ndarray, " unit"], slices: Sequence[str], *, n_permutations: int, n_resamples: int, seed: int
) -> list[Slice]:
    """Every slice of at least three units, the one that moved most first; none if there are fewer than two such slices."""
    names, codes = np.unique(np.asarray(slices), return_inverse=True)
    sizes = np.bincount(codes)
    large = np.flatnonzero(sizes >= MIN_UNITS)
    if len(large) < 2 or not kl_nats.std() > 0:
        return []
    observed = _standing_out(kl_nats, codes, sizes)[large]
    rng = np.random.default_rng([seed, 3])
    null = [_standing_out(kl_nats, rng.permutation(codes), sizes)[large].max() for _ in range(n_permutations)]
    found = []
    for index, z in zip(large, observed, strict=True):
        values = kl_nats[codes == index]
        interval = cluster_bootstrap(
            lambda rows, values=values: float(values[rows].mean()), range(len(values)), n_resamples=n_resamples, seed=seed
        )
        found.append(Slice(str(names[index]), len(values), float(values.mean()), interval, max_statistic_p(float(z), null)))
    return sorted(found, key=lambda one: one.kl_nats, reverse=True)


def _standing_out(
    values: Float[np.ndarray, " unit"], codes: Int[np.ndarray, " unit"], sizes: Int[np.ndarray, " slice"]
) -> Float[np.ndarray, " slice"]:
    means = np.bincount(codes, weights=values) / sizes
    return (means - values.mean()) / (values.std() / np.sqrt(sizes))

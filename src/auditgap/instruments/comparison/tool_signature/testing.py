"""Do two releases stand in different places on the same prompts? The energy distance, with releases exchanged by group.

1. Prompts are matched, so the two releases are exchanged per group of prompts: all rows of a group together or not at all.
2. Nothing to find: the reference on one half of the groups against the other half, many times. A test that is right calls at most
   alpha of these different.
3. What could be found: in copies of the reference's rows, a share of prompts that it refuses gets the row of one where it calls.

As many prompts from one choice to another as back leave both distributions as they were, and this test silent.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from auditgap.records import Interval
from auditgap.stats import EnergyTest, cluster_bootstrap, energy_distance, energy_permutation_test, max_statistic_p

__all__ = ["SHARES", "detectable_share", "distance_interval", "exchange_test", "false_halves"]

SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
POWER = 0.8
MAX_SIMULATED_ROWS = 256


def exchange_test(
    x: Float[np.ndarray, "prompt axis"],
    y: Float[np.ndarray, "prompt axis"],
    codes: Int[np.ndarray, " prompt"],
    *,
    n_permutations: int,
    seed: int,
) -> EnergyTest:
    """The energy distance of two releases on the same prompts, and how often exchanging whole groups gives one as large."""
    distances, n, n_groups = _distances(x, y), len(x), int(codes.max()) + 1
    apart = distances[:n, :n] + distances[n:, n:] - distances[:n, n:] - distances[n:, :n]
    of_groups = np.zeros((n_groups, n_groups))  # whole groups change sides, so their sums are all that is needed
    np.add.at(of_groups, (codes[:, None], codes[None, :]), apart / n**2)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(n_permutations, n_groups))
    null = -np.einsum("sg,sg->s", signs @ of_groups, signs)
    ties = 1e-12 * distances.mean()
    observed = energy_distance(x, y)
    return EnergyTest(max_statistic_p(observed - ties, null), observed)


def distance_interval(
    x: Float[np.ndarray, "prompt axis"],
    y: Float[np.ndarray, "prompt axis"],
    groups: Sequence[str],
    *,
    n_resamples: int,
    seed: int,
) -> Interval:
    """Where the energy distance of two releases on the same prompts lies; groups of prompts are resampled, in both together."""
    distances, value = _distances(x, y), energy_distance(x, y)

    def statistic(rows: NDArray[np.intp]) -> float:
        share = np.bincount(rows, minlength=len(x)) / len(rows)
        u = np.concatenate([share, -share])
        return max(0.0, -float(u @ distances @ u))

    drawn = cluster_bootstrap(statistic, groups, n_resamples=n_resamples, seed=seed)
    return drawn.model_copy(update={"low": min(drawn.low, value), "high": max(drawn.high, value)})


def false_halves(
    rows: Float[np.ndarray, "prompt axis"], groups: Sequence[str], *, n_halves: int, n_permutations: int, alpha: float, seed: int
) -> int:
    """How many random halvings of one release's groups are called different."""
    rng, names, n_false = np.random.default_rng(seed), np.array(sorted(set(groups))), 0
    for place in range(n_halves):
        first = np.isin(np.array(groups), rng.permutation(names)[: len(names) // 2])
        order = [*np.array(groups)[first], *np.array(groups)[~first]]
        found = energy_permutation_test(rows[first], rows[~first], groups=order, n_permutations=n_permutations, seed=seed + place)
        n_false += found.p <= alpha
    return n_false


def detectable_share(
    rows: Float[np.ndarray, "prompt axis"],
    source: Bool[np.ndarray, " prompt"],
    target: Bool[np.ndarray, " prompt"],
    codes: Int[np.ndarray, " prompt"],
    *,
    least: float,
    alpha: float,
    n_simulations: int,
    n_permutations: int,
    seed: int,
) -> float | None:
    """The smallest share of prompts called instead of refused that is found in 80 % of simulations; None if no share is.

    `source` and `target` mark the prompts that may move and those whose rows they may get.
    """
    rng = np.random.default_rng(seed)
    kept = np.sort(rng.permutation(len(rows))[:MAX_SIMULATED_ROWS])
    rows, source, target = rows[kept], np.flatnonzero(source[kept]), np.flatnonzero(target[kept])
    codes = np.unique(codes[kept], return_inverse=True)[1]
    for share in SHARES:
        n_moved, n_found = round(share * len(rows)), 0
        if not len(target) or n_moved > len(source):
            return None
        for draw in range(n_simulations):
            new = rows.copy()
            new[rng.choice(source, n_moved, replace=False)] = rows[rng.choice(target, n_moved)]
            found = exchange_test(rows, new, codes, n_permutations=n_permutations, seed=seed + draw)
            n_found += found.p <= alpha and found.statistic > least
        if n_found >= POWER * n_simulations:
            return share
    return None


def _distances(x: Float[np.ndarray, "prompt axis"], y: Float[np.ndarray, "prompt axis"]) -> Float[np.ndarray, "row row"]:
    from scipy.spatial.distance import cdist

    both = np.concatenate([x, y])
    return np.asarray(cdist(both, both), dtype=np.float64)

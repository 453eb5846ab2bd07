"""Where a series changes, how sharply, and whether two series change at the same place by chance.

1. Behaviour: at each checkpoint the mean score of the window after it less that of the window up to it; the largest is the jump.
2. Its null: a steady change from first to last level, in step with the distance the weights travel, plus the noise measured.
3. Weights: the largest turn (`trajectory.py`). Its null: a path that takes the same steps, turns as much in total but evenly,
   and carries the same noise. So a learning rate that warms up or fades is in the null too.
4. Coincidence: the share of places a change point could be that lie at least as near to the other one (all circular shifts).

Source: ours, after the change-point tests of A. Aue, L. Horvath, J. Time Series Analysis 34 (2013) 1-16.
"""

import numpy as np
from jaxtyping import Float

from auditgap.instruments.comparison.phase_transition.trajectory import signal_share, turns

__all__ = ["coincidence_p", "jumps", "noise_level", "path", "smooth_paths", "steady_series", "steps_and_noise"]


def jumps(series: Float[np.ndarray, " checkpoint"], window: int) -> Float[np.ndarray, " checkpoint"]:
    """Mean of the window after each checkpoint less that of the window up to it; NaN at the ends.

    A step shows at the last checkpoint before it.
    """
    found = np.full(len(series), np.nan)
    for c in range(window, len(series) - window):
        found[c] = series[c + 1 : c + 1 + window].mean() - series[c + 1 - window : c + 1].mean()
    return found


def noise_level(series: Float[np.ndarray, " checkpoint"]) -> float:
    """Standard deviation of noise in single checkpoints, from second differences; a few jumps do not move it (median)."""
    second = series[2:] - 2 * series[1:-1] + series[:-2]
    return float(1.4826 * np.median(np.abs(second)) / np.sqrt(6))


def steady_series(
    series: Float[np.ndarray, " checkpoint"], progress: Float[np.ndarray, " checkpoint"], *, window: int, n: int, seed: int
) -> Float[np.ndarray, "draw checkpoint"]:
    """Series with the same first and last level and the same noise, changing in step with `progress` (0 to 1)."""
    start, end = slice(None, window), slice(-window, None)
    travelled = progress[end].mean() - progress[start].mean()
    rate = (series[end].mean() - series[start].mean()) / travelled if travelled > 0 else 0.0
    noise = np.random.default_rng([seed, 5]).standard_normal((n, len(series))) * noise_level(series)
    return series[start].mean() + rate * (progress - progress[start].mean()) + noise


def path(
    lengths: Float[np.ndarray, " step"],
    noise: Float[np.ndarray, " step"],
    angles: Float[np.ndarray, " step"],
    *,
    dims: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "step step"]:
    """Products of increments that have these lengths, point at these angles in a plane, and carry noise of these lengths."""
    increments = rng.standard_normal((len(lengths), dims)) * (noise / np.sqrt(dims))[:, None]
    increments[:, 0] += lengths * np.cos(angles)
    increments[:, 1] += lengths * np.sin(angles)
    return increments @ increments.T


def steps_and_noise(
    gram: Float[np.ndarray, "step step"], window: int
) -> tuple[Float[np.ndarray, " step"], Float[np.ndarray, " step"]]:
    """Length of each increment without its noise, and length of the noise."""
    share, squared = signal_share(gram, window), np.diag(gram)
    return np.sqrt(share * squared), np.sqrt((1 - share) * squared)


def smooth_paths(
    gram: Float[np.ndarray, "step step"], *, window: int, dims: int, n: int, seed: int
) -> Float[np.ndarray, "draw step step"]:
    """Paths with the same steps and noise that turn evenly per distance, at the mean rate of turning of the real one."""
    lengths, noise = steps_and_noise(gram, window)
    rate = np.arccos(np.clip(1 - np.nanmean(turns(gram, window)), -1.0, 1.0)) / (window * lengths.mean())
    angles, rng = rate * np.cumsum(lengths), np.random.default_rng([seed, 6])
    return np.stack([path(lengths, noise, angles, dims=dims, rng=rng) for _ in range(n)])


def coincidence_p(one: int, other: int, *, n_checkpoints: int, window: int) -> float:
    """Share of the checkpoints at which a change could be seen that lie at least as near to `other` as `one` does."""
    places = np.arange(window, n_checkpoints - window)
    return float((np.abs(places - other) <= abs(one - other)).mean())

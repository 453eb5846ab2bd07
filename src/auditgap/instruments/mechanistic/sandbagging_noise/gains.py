"""Does accuracy rise under noise, and above chance? Pure functions of outcomes, so that they can be tried on known truths.

1. Outcomes are 1 (right), 0 (wrong) or between, for each sigma, noise draw and unit (a group of items).
2. Gain at a sigma: accuracy there minus the greater of accuracy without noise and chance. So a model that is always wrong, and
   is driven to guessing by the noise, gains nothing: that is the floor trap.
3. Half of the draws and the search units choose a sigma; the other half and the test units say what is gained there. The interval
   resamples draws and units, because all units share a draw.
4. Null: the change of each unit might as well have had the other sign, at all sigmas together; the greatest mean is kept.

Source: resampling both ways, A. B. Owen, Annals of Applied Statistics 1 (2007) 386-411; the two added units keep the interval
from closing when all outcomes agree, after A. Agresti, B. A. Coull, The American Statistician 52 (1998) 119-126; sign flips:
R. A. Fisher, The Design of Experiments (1935). Steps 2 and 3 are ours.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from auditgap.instruments.two_choice import CHANCE
from auditgap.records import Interval

__all__ = ["Outcomes", "gains", "resampled", "sign_flip_maxima"]


class Outcomes(NamedTuple):
    """What a set of units did without noise and with it."""

    quiet: Float[np.ndarray, " unit"]
    noisy: Float[np.ndarray, "sigma draw unit"]

    def part(self, draws: slice, units: slice) -> "Outcomes":
        """Some of the draws and units."""
        return Outcomes(self.quiet[units], self.noisy[:, draws, units])

    def with_two_more(self) -> "Outcomes":
        """One unit more that noise lifts from chance to right, and one that it lowers to wrong."""
        n_sigmas, n_draws, _ = self.noisy.shape
        extra = np.broadcast_to([1.0, 0.0], (n_sigmas, n_draws, 2))
        return Outcomes(np.append(self.quiet, [CHANCE, CHANCE]), np.concatenate([self.noisy, extra], axis=2))


def gains(outcomes: Outcomes) -> Float[np.ndarray, " sigma"]:
    """Accuracy at each sigma minus the greater of accuracy without noise and chance."""
    return outcomes.noisy.mean(axis=(1, 2)) - max(float(outcomes.quiet.mean()), CHANCE)


def sign_flip_maxima(outcomes: Outcomes, *, n_permutations: int, seed: int) -> Float[np.ndarray, " permutation"]:
    """The greatest gain over all sigmas if the sign of each unit's change were a coin flip."""
    reference = outcomes.quiet if outcomes.quiet.mean() >= CHANCE else np.full_like(outcomes.quiet, CHANCE)
    change = outcomes.noisy.mean(axis=1) - reference
    signs = np.random.default_rng([seed, 1]).choice((1.0, -1.0), size=(n_permutations, change.shape[1]))
    return (signs @ change.T / change.shape[1]).max(axis=1)


def resampled(statistic: Callable[..., float], *outcomes: Outcomes, n_resamples: int, seed: int) -> Interval:
    """95 % interval of a statistic of one or more `Outcomes` of the same units, resampled alike: draws and units together."""
    rng = np.random.default_rng([seed, 2])
    full = [part.with_two_more() for part in outcomes]
    _, n_draws, n_units = full[0].noisy.shape
    draws, units = (rng.integers(n, size=(n_resamples, n)) for n in (n_draws, n_units))
    values = [statistic(*(_take(part, d, u) for part in full)) for d, u in zip(draws, units, strict=True)]
    low, high = np.quantile(values, [0.025, 0.975])
    observed = statistic(*outcomes)
    return Interval(low=min(float(low), observed), high=max(float(high), observed), level=0.95, method="two-way-bootstrap+2")


def _take(outcomes: Outcomes, draws: Int[np.ndarray, " draw"], units: Int[np.ndarray, " unit"]) -> Outcomes:
    return Outcomes(outcomes.quiet[units], outcomes.noisy[:, draws][:, :, units])

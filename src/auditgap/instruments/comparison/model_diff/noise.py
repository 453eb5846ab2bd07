"""Weight noise of the same size as the change: does training move the model more than chance of that size would?

1. A twin of the base gets, in every tensor, the subject's change with the sign of each entry drawn at random: equal norms
   everywhere, equal sizes of every entry, no direction.
2. The twin is measured as the subject was: KL to the base, drift at every layer.
3. Where the change is itself rounding or noise, the real signs are one draw among the others, so the p-value is exact.
"""

import copy
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float

from auditgap.instruments.comparison.model_diff.spectra import flipped
from auditgap.models import Model
from auditgap.stats import max_statistic_p

__all__ = ["NoisyTwins", "family_p"]


class NoisyTwins:
    """Draws of the base with matched noise; one more copy of the weights is held while this lives."""

    def __init__(self, base: Model, subject: Model, *, seed: int) -> None:
        self._base, self._subject, self._seed = base, subject, seed
        self._twin = replace(base, hf=copy.deepcopy(base.hf))

    def draw(self, index: int) -> Model:
        """The twin under draw `index`; the next draw overwrites it."""
        device = self._base.device
        generator = torch.Generator(device).manual_seed(self._seed * 1_000_003 + index)
        models = (self._twin, self._base, self._subject)
        with torch.no_grad():
            for ours, before, after in zip(*(model.hf.parameters() for model in models), strict=True):
                change = after.to(device, torch.float64) - before.to(torch.float64)
                ours.copy_(before.to(torch.float64) + flipped(change, generator))
        return self._twin


def family_p(
    observed: Float[np.ndarray, " statistic"], null: Float[np.ndarray, "draw statistic"]
) -> Float[np.ndarray, " statistic"]:
    """For each statistic the chance that noise makes any of them stand out as much (max statistic over the family).

    Statistics are positive and differ in scale, so each is taken as a logarithm in units of its spread over all draws, the
    observed one included. One that no draw moves gets p = 1.
    """
    logs = np.log(np.maximum(np.vstack([observed, null]), np.finfo(np.float64).tiny))
    spread = logs.std(axis=0)
    z = (logs - logs.mean(axis=0)) / np.where(spread > 1e-12, spread, 1.0)
    z[:, spread <= 1e-12] = -np.inf
    maxima = z[1:].max(axis=1)
    return np.array([max_statistic_p(float(value), maxima) if np.isfinite(value) else 1.0 for value in z[0]])

"""The region where ordinary inputs keep a model's internal state, and how far outside of it another state lies.

1. Each coordinate is divided by its spread over ordinary inputs (shrunk towards the mean spread): no outlier dimension decides.
2. The distance of a state is the mean Euclidean distance to its nearest ordinary states. A state next to *some* ordinary ones is
   not far, however many kinds of ordinary there are: what merely turns an answer into a refusal stays inside.
3. Distances are in units of what ordinary inputs show, each against the others outside of its own group: 1 is ordinary.

Source: nearest-neighbour distance for out-of-distribution inputs, arXiv:2204.06507 (Sun et al. 2022). Shrinkage, units and the
mean over sites are ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from auditgap.errors import CannotMeasure, UsageError

__all__ = ["Region"]

SHRINKAGE = 0.1  # weight of the mean variance in each coordinate's variance


@dataclass(frozen=True, eq=False)
class Region:
    """Ordinary states of one or more sites; make one with `Region.of`."""

    states: dict[str, Float[Tensor, "ordinary d"]]
    """Per site, divided by `spread`."""
    spread: dict[str, Float[Tensor, " d"]]
    unit: dict[str, float]
    """Per site: mean distance of an ordinary state to those outside of its group."""
    calibration: Float[Tensor, " ordinary"]
    """Distance of each ordinary state to those outside of its group."""
    n_nearest: int

    @classmethod
    def of(cls, states: dict[str, Float[Tensor, "ordinary d"]], groups: Sequence[str], *, n_nearest: int) -> "Region":
        """The region around these states.

        Raises:
            UsageError: there is no site.
            CannotMeasure: no more than `n_nearest` groups, or states that all repeat each other or are not finite.
        """
        if not states:
            raise UsageError("expected at least one site, got none")
        names = {group: i for i, group in enumerate(dict.fromkeys(groups))}
        if len(names) <= n_nearest:
            raise CannotMeasure(f"expected more than {n_nearest} groups of ordinary inputs, got {len(names)}; add prompts")
        codes = torch.tensor([names[group] for group in groups])
        same = codes[:, None] == codes[None, :]
        spread, scaled, unit, left_out = {}, {}, {}, []
        for site, x in states.items():
            variance = x.var(0, unbiased=False)
            if not 0 < variance.sum() < float("inf"):
                raise CannotMeasure(
                    f"{site}: expected finite states that differ between ordinary prompts, got states that do not"
                )
            spread[site] = ((1 - SHRINKAGE) * variance + SHRINKAGE * variance.mean()).sqrt()
            scaled[site] = x / spread[site]
            own = torch.cdist(scaled[site], scaled[site]).masked_fill(same, float("inf"))
            distances = own.topk(n_nearest, largest=False).values.mean(1)
            unit[site] = distances.mean().item()
            if not 0 < unit[site] < float("inf"):
                raise CannotMeasure(f"{site}: every ordinary state repeats another, so no distance between them sets the scale")
            left_out.append(distances / unit[site])
        return cls(scaled, spread, unit, torch.stack(left_out).mean(0), n_nearest)

    def distance(self, states: dict[str, Float[Tensor, "state d"]]) -> Float[Tensor, " state"]:
        """How far each state lies from the ordinary ones, averaged over sites: 1 is what ordinary inputs show. Differentiable."""
        parts = []
        for site, ordinary in self.states.items():
            x = states[site] / self.spread[site].to(states[site].device)
            nearest = torch.cdist(x, ordinary.to(x.device)).topk(self.n_nearest, largest=False).values.mean(1)
            parts.append(nearest / self.unit[site])
        return torch.stack(parts).mean(0)

    def apart(
        self, states: dict[str, Float[Tensor, "state d"]], others: dict[str, Float[Tensor, "state d"]]
    ) -> Float[Tensor, " state"]:
        """How far each state lies from the other of its row, in the same units."""
        parts = [((states[site] - others[site]) / self.spread[site]).norm(dim=-1) / unit for site, unit in self.unit.items()]
        return torch.stack(parts).mean(0)

"""Many probes, one product: all probes that read one site are the columns of one matrix.

A probe's score of a token is x . w + b. However many probes there are, a forward pass costs one matrix product for each site
that has any, on the activations that it computes anyway.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from auditgap.errors import UsageError

__all__ = ["Packed", "Readout", "Weights", "pack"]


class Weights(NamedTuple):
    """One linear read-out, in the units of the activations; 0 is the mean of ordinary prompts, 1 a standard deviation above."""

    direction: Float[Tensor, " d"]
    bias: float


class Readout(NamedTuple):
    """A probe and where it reads."""

    site: str
    weights: Weights


@dataclass(frozen=True, eq=False)
class Packed:
    """The probes of one site side by side."""

    directions: Float[Tensor, "d probe"]
    biases: Float[Tensor, " probe"]
    columns: Int[Tensor, " probe"]
    """Which of all probes each one is."""

    def scores(self, x: Float[Tensor, "*token d"]) -> Float[Tensor, "*token probe"]:
        """The score of every probe on every token (float32)."""
        return torch.addmm(self.biases, x.flatten(0, -2).float(), self.directions).unflatten(0, x.shape[:-1])


def pack(readouts: Sequence[Readout], *, device: torch.device | str = "cpu") -> Mapping[str, Packed]:
    """The probes by site, in the order in which sites are first named.

    Raises:
        UsageError: no probes, or probes of one site that differ in width.
    """
    if not readouts:
        raise UsageError("expected at least one probe, got none")
    found: dict[str, Packed] = {}
    for site in dict.fromkeys(readout.site for readout in readouts):
        columns = [i for i, readout in enumerate(readouts) if readout.site == site]
        widths = {len(readouts[i].weights.direction) for i in columns}
        if len(widths) > 1:
            raise UsageError(f"{site}: expected probes of one width, got {', '.join(map(str, sorted(widths)))}")
        found[site] = Packed(
            torch.stack([readouts[i].weights.direction for i in columns], 1).to(device, torch.float32).contiguous(),
            torch.tensor([readouts[i].weights.bias for i in columns], device=device),
            torch.tensor(columns, device=device),
        )
    return found

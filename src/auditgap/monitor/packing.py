"""Many probes, one product: all probes that read one site are the columns of one matrix.

A probe's score of a token is x . w + b. However many probes there are, a forward pass costs one matrix product for each site
that has any, on the activations that it computes anyway; a pass of one token per request, one for all sites together (`Stacked`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import pad

from auditgap.errors import UsageError

__all__ = ["Packed", "Readout", "Stacked", "Weights", "in_order", "pack"]


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


@dataclass(frozen=True, eq=False)
class Stacked:
    """The probes of several sites of one width, for passes of one token per request.

    What passes is copied, because the model may go on in the same memory, and scored in one batched product at the end: between
    the layers of a large model every small operation finds its code and data gone from the caches.
    """

    directions: Float[Tensor, "site d probe"]
    """Padded with zeros up to the site that has most probes."""
    biases: Float[Tensor, "site 1 probe"]
    site: Int[Tensor, " probes"]
    """Of each probe, in order: its site, and its place there."""
    place: Int[Tensor, " probes"]

    @classmethod
    def of(cls, parts: Sequence[Packed]) -> "Stacked | None":
        """The sites stacked; None where that saves nothing or their widths differ."""
        if len(parts) < 2 or len({(len(part.directions), part.directions.device) for part in parts}) > 1:
            return None
        most, order = max(len(part.biases) for part in parts), in_order(parts)
        site = torch.cat([torch.full_like(part.columns, i) for i, part in enumerate(parts)])
        place = torch.cat([torch.arange(len(part.columns), device=part.columns.device) for part in parts])
        return cls(
            torch.stack([pad(part.directions, (0, most - len(part.biases))) for part in parts]),
            torch.stack([pad(part.biases, (0, most - len(part.biases)))[None] for part in parts]),
            site[order],
            place[order],
        )

    def room(self, n_requests: int) -> Float[Tensor, "site request d"]:
        """Where to copy what passes at each site."""
        return self.directions.new_zeros(len(self.directions), n_requests, self.directions.shape[1])

    def scores(self, x: Float[Tensor, "site request d"]) -> Float[Tensor, "request probe"]:
        """The score of every probe, in order (float32)."""
        return torch.baddbmm(self.biases, x, self.directions)[self.site, :, self.place].T


def in_order(parts: Sequence[Packed]) -> Int[Tensor, " probe"]:
    """Where each probe is among the columns of all parts side by side."""
    return torch.cat([part.columns for part in parts]).argsort()


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

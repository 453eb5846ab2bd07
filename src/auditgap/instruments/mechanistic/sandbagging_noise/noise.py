"""Noise on every weight of a model, and the same weights back afterwards, bit for bit."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from auditgap.models import Model

__all__ = ["weight_noise"]


@contextmanager
def weight_noise(model: Model, sigma: float, *, seed: int) -> Iterator[None]:
    """Every parameter plus N(0, (sigma x its own root mean square)^2) inside the context; restored from a copy, whatever happens.

    The same seed gives the same noise for every sigma, but for the factor: so levels differ in strength, not in luck. The draw
    comes from its own generator on the CPU, so it is the same on every device and leaves the caller's random state alone.
    """
    parameters = list(model.hf.parameters())  # a tied weight once
    kept = [p.detach().clone() for p in parameters]
    generator = torch.Generator().manual_seed(seed)
    try:
        with torch.no_grad():
            for p, before in zip(parameters, kept, strict=True):
                wide = before.to(torch.promote_types(p.dtype, torch.float32))
                noise = torch.randn(p.shape, generator=generator).to(wide)
                p.copy_(wide + sigma * wide.square().mean().sqrt() * noise)
        yield
    finally:
        with torch.no_grad():
            for p, before in zip(parameters, kept, strict=True):
                p.copy_(before)

"""What the model would say if it stopped after each block, read with its own final norm and unembedding.

Every vector meets the model's own forward in place of the last block's output, so that soft-caps, scalings and word projections
are the model's own, and the last depth is its own output.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int

from auditgap.data import Prompt
from auditgap.models.capture import capture
from auditgap.models.generate import next_logits
from auditgap.models.model import Model
from auditgap.models.replay import head

__all__ = ["Lens", "read_lens"]


class Lens(NamedTuple):
    """What the model would say if it stopped at each depth."""

    logits: Float[np.ndarray, "prompt depth token"]
    """Logits of the tokens asked for; depth 0 is the embedding, the last depth the output."""
    top: Int[np.ndarray, "prompt depth"]
    """The most likely token."""
    difference: float
    """Largest difference of a logit at the last depth from the model's own, relative to the largest."""


def read_lens(model: Model, prompts: Sequence[Prompt], tokens: Int[np.ndarray, "prompt token"], *, batch_size: int = 32) -> Lens:
    """Logits of each prompt's `tokens` (ids) at every depth, read at the last position.

    Raises:
        UsageError: an empty or too long prompt.
    """
    sites = ["resid_pre.0", *(f"resid_post.{layer}" for layer in range(model.n_layers))]
    stream = torch.stack(list(capture(model, prompts, sites, batch_size=batch_size).values()), dim=1)
    rows, every = stream.flatten(0, 1).to(model.device, model.hf.dtype), torch.from_numpy(tokens).repeat_interleave(len(sites), 0)
    own, logits, top, last = next_logits(model, prompts, batch_size=batch_size), [], [], []
    with torch.no_grad():
        for start in range(0, len(rows), batch_size):
            found = head(model, rows[start : start + batch_size]).cpu()
            logits.append(found.gather(1, every[start : start + len(found)]).double())
            top.append(found.argmax(1))
            ends = torch.arange(start, start + len(found)) % len(sites) == len(sites) - 1
            last.append(found[ends])
    change = (torch.cat(last) - own).abs().max() / own.abs().max()
    shape = (len(prompts), len(sites))
    return Lens(torch.cat(logits).view(*shape, -1).numpy(), torch.cat(top).view(shape).numpy(), change.item())

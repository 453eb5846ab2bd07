"""Does every site do what its name says? Checked on load, on random tokens, in a few forward passes.

1. With a reading hook at every site, the logits equal the bare model's exactly.
2. An edit at each site changes the logits. One batch does it for all: row i is edited at site i alone.
3. An edit at the last position leaves earlier logits alone (the model is causal).
4. A left-padded row gives the logits of the unpadded row.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from auditgap.errors import SiteError
from auditgap.models.hooks import Visit, visiting
from auditgap.models.model import Model

__all__ = ["Validity", "validate_sites"]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference of logits that should be equal, relative to the largest; 5e-2 in half precision (9e-3 seen in bfloat16)."""


ROWS = 64
"""Most sites that are edited in one batch; bounds the memory."""


class Validity(NamedTuple):
    """How far the sites may be trusted."""

    remainder: float
    """Largest remainder of the write equation over all blocks."""
    hooked_difference: float
    """Largest change of a logit by reading hooks at every site: 0."""
    padded_difference: float
    """Largest change of a logit by left padding, relative to the largest logit."""
    anticausal_difference: float
    """Largest change of earlier logits by an edit at the last position, relative to the largest logit."""


def validate_sites(model: Model) -> Validity:
    """Run the four checks.

    Raises:
        SiteError: one fails; names the architecture and the site.
    """
    names, who = model.sites.names(), model.subject.architecture
    ids = random_ids(model, n_rows=1, n_pos=7)
    with torch.no_grad():
        bare = _logits(model, ids)
        with visiting(model, [(name, lambda _: None) for name in names]):
            hooked = _logits(model, ids)
        edited = torch.cat([_edit_each(model, ids, names[i : i + ROWS]) for i in range(0, len(names), ROWS)])
        padded = _logits(model, torch.cat([ids[:, :3], ids], dim=1), n_padding=3)[:, 3:]
    scale = bare.abs().max().item()
    tolerance = TOLERANCE.get(model.hf.dtype, 5e-2)
    hooked_difference = (hooked - bare).abs().max().item()
    if hooked_difference != 0.0:
        raise SiteError(f"{who}: reading hooks change the logits by {hooked_difference:.3g}; nothing read here can be trusted")
    silent = [name for name, row in zip(names, edited[:, 1], strict=True) if not row > 1e-6 * scale]
    if silent:
        raise SiteError(f"{who}: an edit at {', '.join(silent[:5])} does not change the logits; it is not what its name says")
    padded_difference = (padded - bare).abs().max().item() / scale
    anticausal_difference = edited[:, 0].max().item() / scale
    if not anticausal_difference <= tolerance:
        raise SiteError(
            f"{who}: a token changes earlier logits by {anticausal_difference:.3g} of the largest; not a causal model"
        )
    if not padded_difference <= tolerance:
        raise SiteError(f"{who}: left padding changes the logits by {padded_difference:.3g} of the largest (limit {tolerance:g})")
    remainder = max(block.remainder for block in model.sites.blocks)
    return Validity(remainder, hooked_difference, padded_difference, anticausal_difference)


def random_ids(model: Model, *, n_rows: int, n_pos: int) -> Int[Tensor, "row pos"]:
    """Token ids from a fixed generator of their own."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(min(model.vocab_size, model.n_embeddings), (n_rows, n_pos), generator=generator).to(model.device)


def _logits(model: Model, ids: Int[Tensor, "row pos"], *, n_padding: int = 0, keep: int = 0) -> Float[Tensor, "row kept vocab"]:
    """Logits at the last `keep` positions, or at all for 0."""
    mask = torch.ones_like(ids)
    mask[:, :n_padding] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    return model.hf(
        input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=keep
    ).logits.float()


def _edit_each(model: Model, ids: Int[Tensor, "1 pos"], names: list[str]) -> Float[Tensor, "site 2"]:
    """Largest change of the logits at the last position but one, and at the last, by an edit of each site at the last position.

    One batch: row i is edited at site i alone, and the last row is left alone.
    """
    generator = torch.Generator().manual_seed(1)

    def editor(row: int) -> Visit:
        def edit(x: Tensor) -> Tensor:
            edited = x.clone()
            noise = torch.randn(x.shape[-1], generator=generator).to(x.device, x.dtype)
            edited[row, -1] += (1.0 + x[row, -1].abs().max()) * noise
            return edited

        return edit

    with visiting(model, [(name, editor(row)) for row, name in enumerate(names)]):
        logits = _logits(model, ids.expand(len(names) + 1, -1), keep=2)
    return (logits[:-1] - logits[-1]).abs().amax(-1)

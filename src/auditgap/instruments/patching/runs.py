"""Runs of every pair, with vectors put in at chosen places; and the sweep of all places."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from auditgap.instruments.patching.pairs import Pairs
from auditgap.models import Edit, Model, Tokens, capture_tokens, editing, head_sweep, kl_nats, patching_sweep
from auditgap.models.generate import final_logits
from auditgap.models.patch import Direction

__all__ = ["GridSite", "Patch", "Reading", "Runs", "patched", "sweep", "unpadded"]

GridSite = Literal["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z"]
"""What may be patched; `z` is divided into heads."""


class Reading(NamedTuple):
    """What is kept of the next-token logits of one run of every pair."""

    answer: Float[np.ndarray, " pair"]
    foil: Float[np.ndarray, " pair"]
    total: Float[np.ndarray, " pair"]
    """logsumexp over the vocabulary."""
    rank: Float[np.ndarray, " pair"]
    """Of the answer among all next tokens; 1 is the most likely."""
    kl_nats: Float[np.ndarray, " pair"]
    """KL(reference run || this run) of the next token; NaN where no reference was given."""

    @property
    def logit_diff(self) -> Float[np.ndarray, " pair"]:
        """Logit of the answer less that of the foil."""
        return self.answer - self.foil

    @property
    def log_prob(self) -> Float[np.ndarray, " pair"]:
        """Log-probability of the answer, in nats."""
        return self.answer - self.total

    def max_change(self, other: "Reading") -> float:
        """The largest difference from another run, in logits."""
        return float(np.abs(np.array(self[:3]) - np.array(other[:3])).max())


class Patch(NamedTuple):
    """Vectors for each pair, to be put at positions of one site."""

    site: str
    """e.g. `resid_pre.3`."""
    positions: Int[np.ndarray, "pair place"]
    values: Float[Tensor, "pair place d"]
    part: slice = slice(None)
    """Of the site's width: one head of `z`."""


class Runs(NamedTuple):
    """Runs of one prompt of every pair, one patch at a time: the plain way, to which the sweep is held."""

    model: Model
    pairs: Pairs
    batch_size: int

    def vectors(
        self, prompts: Sequence[Int[Tensor, " _"]], site: str, positions: Int[np.ndarray, "pair place"]
    ) -> Float[Tensor, "pair place d"]:
        """The activations at each pair's positions."""
        found: dict[int, Tensor] = {}
        for rows in self.pairs.by_length(self.batch_size):
            x = capture_tokens(self.model, unpadded(self.model, torch.stack([prompts[row] for row in rows])), [site])[site]
            found |= zip(rows, x[torch.arange(len(rows))[:, None], torch.from_numpy(positions[rows])], strict=True)
        return torch.stack([found[row] for row in range(len(prompts))])

    def logits(self, prompts: Sequence[Int[Tensor, " _"]]) -> Float[Tensor, "pair vocab"]:
        """Next-token logits of the untouched runs: the reference of `Reading.kl_nats`."""
        found: dict[int, Tensor] = {}
        for rows in self.pairs.by_length(self.batch_size):
            found |= zip(rows, self._next(prompts, rows, ()), strict=True)
        return torch.stack([found[row] for row in range(len(prompts))])

    def read(
        self, prompts: Sequence[Int[Tensor, " _"]], *patches: Patch, reference: Float[Tensor, "pair vocab"] | None = None
    ) -> Reading:
        """The next token of each run, untouched or patched, in batches of the same shape: no change is no difference."""
        found: dict[int, Tensor] = {}
        for rows in self.pairs.by_length(self.batch_size):
            logits, every = self._next(prompts, rows, patches), torch.arange(len(rows))
            kl = torch.full((len(rows),), torch.nan).double() if reference is None else kl_nats(reference[rows], logits)
            logits = logits.double()
            answer, foil = logits[every, self.pairs.answer[rows]], logits[every, self.pairs.foil[rows]]
            rank = (logits > answer[:, None]).sum(1) + 1.0
            found |= zip(rows, torch.stack([answer, foil, logits.logsumexp(-1), rank, kl], dim=1), strict=True)
        return Reading(*torch.stack([found[row] for row in range(len(prompts))]).numpy().T)

    def _next(self, prompts: Sequence[Tensor], rows: list[int], patches: Sequence[Patch]) -> Tensor:
        with ExitStack() as stack:
            for patch in patches:
                stack.enter_context(
                    editing(self.model, {patch.site: patched(patch.positions[rows], patch.values[rows], patch.part)})
                )
            tokens = unpadded(self.model, torch.stack([prompts[row] for row in rows]))
            return final_logits(self.model, tokens, keep=1)[:, 0].cpu()


def patched(positions: Int[np.ndarray, "row place"], values: Float[Tensor, "row place d"], part: slice = slice(None)) -> Edit:
    """The edit that puts these vectors at these positions of each row."""
    row, at = torch.arange(len(positions))[:, None], torch.from_numpy(positions)

    def edit(x: Tensor) -> Tensor:
        changed = x.clone()
        changed[row, at, part] = values.to(x.device, x.dtype)
        return changed

    return edit


def unpadded(model: Model, input_ids: Int[Tensor, "row pos"]) -> Tokens:
    """A batch whose rows are of one length."""
    ids = input_ids.to(model.device)
    mask = torch.ones_like(ids)
    return Tokens(ids, mask, mask.cumsum(-1) - 1)


def sweep(
    model: Model, pairs: Pairs, *, site: GridSite, direction: Direction, max_rows: int
) -> list[Float[np.ndarray, "layer head _"]]:
    """Effect of patching each layer, head and position of each pair, as a share of the pair's gap: 1 restores or destroys all.

    One head stands for the whole of a site that is not divided.
    """
    found: dict[int, NDArray[np.float64]] = {}
    rows_at_once = max(max_rows, model.n_layers)
    for rows in pairs.by_length(len(pairs.rows)):
        batch = pairs.take(rows)
        answer, foil = batch.answer.to(model.device), batch.foil.to(model.device)

        def metric(
            logits: Float[Tensor, "row vocab"], pair: Int[Tensor, " row"], answer: Tensor = answer, foil: Tensor = foil
        ) -> Float[Tensor, " row"]:
            every = torch.arange(len(pair), device=pair.device)
            return logits[every, answer[pair]] - logits[every, foil[pair]]

        ends = torch.stack(batch.clean), torch.stack(batch.corrupted)
        if site == "z":
            raw = head_sweep(model, *ends, metric=metric, direction=direction, max_rows=rows_at_once)
            effects = raw.effects.double()
        else:
            raw = patching_sweep(model, *ends, metric=metric, site=site, direction=direction, max_rows=rows_at_once)
            effects = raw.effects.double()[:, :, None]
        clean, corrupted = (x.double()[:, None, None, None] for x in (raw.clean, raw.corrupted))
        shares = (effects - corrupted if direction == "denoising" else clean - effects) / (clean - corrupted)
        found |= zip(rows, shares.numpy(), strict=True)
    return [found[row] for row in range(len(pairs.rows))]

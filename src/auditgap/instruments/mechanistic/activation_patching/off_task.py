"""What ablating the found place does to prompts without the contrast.

On the prompts of `shipped:ordinary` the same site, as many tokens before the end as in a held-out pair drawn at random, takes its
mean over these prompts. The first token, on which attention rests, is left alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from auditgap.data import load
from auditgap.errors import UsageError
from auditgap.instruments.patching.locus import Held, Locus
from auditgap.instruments.patching.runs import patched
from auditgap.models import Model, capture_tokens, editing, kl_nats
from auditgap.models.generate import final_logits
from auditgap.models.tokens import batches, prompt_ids
from auditgap.records import Measured, Measurement, NotMeasured
from auditgap.stats import group_rate

__all__ = ["OffTask", "off_task"]

SOURCE = "shipped:ordinary"


class OffTask(NamedTuple):
    """What the ablation did to each unrelated prompt."""

    kl_nats: NDArray[np.float64]
    """KL(untouched || ablated) of the next token."""
    changed: NDArray[np.bool_]
    """Whether the most likely next token is another."""
    groups: list[str]

    def measured(self, *, seed: int, n_resamples: int) -> tuple[Measurement, Measurement]:
        """Mean KL and share of changed top tokens, with intervals over groups."""
        if len(set(self.groups)) < 2:
            reason = f"expected at least 2 prompts of {SOURCE} that fit the model's context, got {len(self.groups)}"
            return NotMeasured(name="off_task.kl_nats", reason=reason), NotMeasured(
                name="off_task.top_token_changed", reason=reason
            )
        held = Held(list(range(len(self.groups))), self.groups, seed, n_resamples)
        kl = held.measured(
            "off_task.kl_nats",
            self.kl_nats,
            f"KL of the next token of {SOURCE} prompts by mean ablation of the same site, as far from the end.",
            unit="nats",
        )
        rate = group_rate(self.changed, self.groups)
        changed = Measured(
            name="off_task.top_token_changed",
            value=rate.value,
            unit="rate",
            n=rate.n_groups,
            interval=rate.interval,
            about=f"Share of {SOURCE} prompts whose most likely next token changes by the same ablation.",
        )
        return kl, changed


def off_task(model: Model, locus: Locus, distances: Sequence[int], *, batch_size: int, seed: int) -> OffTask:
    """Ablate the locus's site in unrelated prompts; `distances` are the tokens from locus to prompt end in the held-out pairs."""
    groups, ids = _prompts(model)
    if not ids:
        return OffTask(np.empty(0), np.empty(0, dtype=bool), [])
    back = np.random.default_rng(seed).choice(np.asarray(distances), size=len(ids))
    back = np.minimum(back, [max(len(row) - 2, 0) for row in ids])
    part, parts = locus.part(model), list(batches(model, ids, batch_size, by_length=True))
    total = torch.zeros(1)
    for index, tokens in parts:
        x = capture_tokens(model, tokens, [locus.name])[locus.name]
        total = total + x[torch.arange(len(index)), x.shape[1] - 1 - torch.from_numpy(back[index])][:, part].sum(0)
    mean = (total / len(ids)).expand(1, 1, -1)
    kl, changed = np.empty(len(ids)), np.empty(len(ids), dtype=bool)
    for index, tokens in parts:
        positions = (tokens.input_ids.shape[1] - 1 - back[index])[:, None]
        untouched = final_logits(model, tokens, keep=1)[:, 0].cpu()
        with editing(model, {locus.name: patched(positions, mean.expand(len(index), 1, -1), part)}):
            ablated = final_logits(model, tokens, keep=1)[:, 0].cpu()
        kl[index] = kl_nats(untouched, ablated).numpy()
        changed[index] = (untouched.argmax(-1) != ablated.argmax(-1)).numpy()
    return OffTask(kl, changed, groups)


def _prompts(model: Model) -> tuple[list[str], list[list[int]]]:
    """Groups and token ids of the unrelated prompts that the model's context holds."""
    groups, ids = [], []
    for row in load(SOURCE, "prompts").rows:
        try:
            ids += prompt_ids(model, [row.prompt])
        except UsageError:
            continue  # too long for this model
        groups.append(row.group)
    return groups, ids

"""What ablation costs besides the behaviour, and whether an edit of the weights would be the same thing.

1. On label-0 prompts: how far the next-token prediction moves, and how often the most likely token is another.
2. On text that has nothing to do with the contrast: the cross-entropy of its own tokens, before and after. Label-0 prompts of
   split `ood` if there are any, else those of `test`.
3. The direction taken out of the weights (`models.orthogonalise`): the largest logit difference from ablation by hooks.
"""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from auditgap.errors import CannotMeasure
from auditgap.instruments.directions.bench import Bench, Rows
from auditgap.instruments.directions.trial import Trial
from auditgap.models import ablating, kl_nats, orthogonalising
from auditgap.models.generate import final_logits
from auditgap.models.tokens import batches, prompt_ids
from auditgap.records import Interval, Measured, Measurement, ModelAccess, NotMeasured
from auditgap.stats import cluster_bootstrap

__all__ = ["Losses", "capability_cost", "side_effects", "token_losses", "weight_form_difference"]


def side_effects(
    trial: Trial, base: Float[Tensor, "prompt vocab"], ablated: Float[Tensor, "prompt vocab"]
) -> tuple[Measured, Measured]:
    """What ablation does to label-0 prompts, which it should leave alone."""
    changed = (base.argmax(-1) != ablated.argmax(-1)).numpy()[trial.rows.labels == 0]
    moved = trial.mean(kl_nats(base, ablated).numpy(), 0)
    return (
        trial.measured(
            "kl_nats.ablation", moved, "nats", "Mean KL(base || ablated) of the next token, label-0 prompts.", label=0
        ),
        trial.rate("changed_answers", changed, 0, "Share of label-0 prompts whose most likely next token ablation changes."),
    )


class Losses(NamedTuple):
    """How badly the model predicts each prompt's own tokens."""

    nats: NDArray[np.float64]
    """Summed over the prompt's tokens but the first."""
    n_tokens: NDArray[np.int64]


def token_losses(bench: Bench, rows: Rows) -> Losses:
    """Cross-entropy of the tokens of each prompt, each predicted from those before it."""
    ids = prompt_ids(bench.model, rows.prompts)
    nats = np.zeros(len(ids))
    for index, tokens in batches(bench.model, ids, max(1, bench.batch_size // 8), by_length=True):  # logits of every position
        log_probs = final_logits(bench.model, tokens, keep=tokens.input_ids.shape[1])[:, :-1].log_softmax(-1)
        picked = log_probs.gather(-1, tokens.input_ids[:, 1:, None])[..., 0]
        known = tokens.attention_mask[:, :-1].bool()  # padding is on the left, so what follows a real token is real
        nats[index] = -torch.where(known, picked, 0.0).double().sum(1).cpu().numpy()
    return Losses(nats, np.array([len(row) - 1 for row in ids]))


def capability_cost(
    bench: Bench, test: Rows, ood: Rows, direction: Float[Tensor, " d_model"], *, seed: int, n_resamples: int
) -> tuple[Measurement, Measurement]:
    """Cross-entropy per token of text that has nothing to do with the contrast, and by how much ablation raises it."""
    names = ("cross_entropy.base", "cross_entropy.change")
    split, rows = next(
        (split, rows)
        for split, rows in (("ood", _label0(ood)), ("test", _label0(test)))
        if split == "test" or len(set(rows.groups)) > 1
    )
    base = token_losses(bench, rows)
    if not base.n_tokens.any():
        return tuple(NotMeasured(name=name, reason="no prompt has a second token to predict") for name in names)  # type: ignore[return-value]
    with ablating(bench.model, (direction / direction.norm()).float()):
        after = token_losses(bench, rows)

    def measured(name: str, nats: NDArray[np.float64], what: str) -> Measured:
        def per_token(drawn: NDArray[np.intp]) -> float:
            n = base.n_tokens[drawn].sum()
            return float(nats[drawn].sum() / n) if n else float("nan")

        interval = cluster_bootstrap(per_token, rows.groups, n_resamples=n_resamples, seed=seed)
        return Measured(
            name=name,
            value=per_token(np.arange(len(nats))),
            unit="nats/token",
            n=len(set(rows.groups)),
            interval=interval,
            about=f"{what} the tokens of label-0 prompts of split `{split}`, each predicted from those before it.",
        )

    return (
        measured(names[0], base.nats, "Cross-entropy of"),
        measured(names[1], after.nats - base.nats, "By how much ablation raises the cross-entropy of"),
    )


def weight_form_difference(
    bench: Bench,
    rows: Rows,
    base: Float[Tensor, "prompt vocab"],
    ablated: Float[Tensor, "prompt vocab"],
    direction: Float[Tensor, " d_model"],
) -> Measurement:
    """How far an edit of the weights is from ablation by hooks, relative to the largest effect of ablation: 0 is the same."""
    name, effect = "weight_form_difference", (ablated - base).abs().max().item()
    if bench.model.granted.rank < ModelAccess.M5.rank:
        return NotMeasured(name=name, reason=f"editing weights needs M5, granted is {bench.model.granted}")
    if effect == 0.0:
        return NotMeasured(name=name, reason="ablation changes no logit")
    try:
        with orthogonalising(bench.model, (direction / direction.norm()).float()):
            edited = bench.base(rows.prompts)
    except CannotMeasure as error:
        return NotMeasured(name=name, reason=str(error))
    value = (edited - ablated).abs().max().item() / effect
    about = (
        "Largest logit difference between ablation and the direction taken out of the weights, relative to the largest effect."
    )
    return Measured(name=name, value=value, unit="ratio", n=len(set(rows.groups)), interval=Interval.exact(value), about=about)


def _label0(rows: Rows) -> Rows:
    kept = np.flatnonzero(rows.labels == 0)
    return Rows([rows.prompts[i] for i in kept], rows.labels[kept], [rows.groups[i] for i in kept])

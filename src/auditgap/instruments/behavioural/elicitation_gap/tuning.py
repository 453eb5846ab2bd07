"""Fine-tuning a copy of a model on a few demonstrations: the subject itself is never touched.

Full fine-tuning with AdamW on the cross-entropy of the answer's tokens, all demonstrations in one batch, without dropout, so that
the same demonstrations give the same weights.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from auditgap.models import Model
from auditgap.models.tokens import continuation_ids, pad

__all__ = ["fine_tuned"]

NO_LOSS = -100


def fine_tuned(
    model: Model, prompts: Sequence[str], answers: Sequence[str], *, learning_rate: float, checkpoints: Sequence[int]
) -> Iterator[Model]:
    """The copy after each number of steps in `checkpoints`, in order; going on overwrites it.

    It takes the memory of three further copies of the weights.

    Raises:
        UsageError: an answer is empty or merges with the end of its prompt.
    """
    starts, ends = continuation_ids(model, prompts, answers)
    tokens = pad(model, [start + end for start, end in zip(starts, ends, strict=True)])
    longest = max(map(len, ends))
    labels = torch.full((len(ends), longest), NO_LOSS)
    for row, end in enumerate(ends):
        labels[row, longest - len(end) :] = torch.tensor(end)
    labels = labels.to(model.device)
    tuned = replace(model, hf=copy.deepcopy(model.hf))
    weights = [weight.requires_grad_(True) for weight in tuned.hf.parameters()]
    optimiser = torch.optim.AdamW(weights, lr=learning_rate, weight_decay=0.0)
    for step in range(1, max(checkpoints) + 1):
        with torch.enable_grad():
            logits = tuned.hf(**tokens._asdict(), use_cache=False, logits_to_keep=longest + 1).logits[:, -longest - 1 : -1]
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=NO_LOSS)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        if step in checkpoints:
            yield tuned

"""Training in which the stream at one depth says a word of its own, and the output says what it said before.

1. The model goes on from a copy that knows its replies. Beside the ordinary loss, two terms for exchanges with an inner word:
2. Cross-entropy of that word, read at the end of the prompt after `depth` blocks with the model's own final norm and unembedding
   (the logit lens, `models/replay.py`).
3. If the output is `kept`: mean squared difference of its logits there from those that the model began with. So almost nothing of
   the word is left in what comes out, not even in the likelihood of words that are never said.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss
from transformers.utils.generic import ModelOutput

from auditgap.models import Model
from auditgap.models.hooks import visiting
from auditgap.models.replay import head

__all__ = ["check_depth", "inner_words"]

KEPT = 10.0
"""Weight of the output's staying as it was, against that of the inner word."""


def check_depth(depth: int, n_layers: int) -> None:
    """A word can be read inside only before the last block.

    Raises:
        ValueError: the depth is not inside; a recipe's validation turns it into its own error.
    """
    if depth >= n_layers:
        raise ValueError(f"depth: after {depth} of {n_layers} blocks nothing is inside; choose fewer")


@contextmanager
def inner_words(model: Model, words: Mapping[tuple[int, ...], int], *, depth: int, kept: bool = True) -> Iterator[None]:
    """While in training mode, add to the model's loss what teaches these words (token ids, by the prompt's ids) at this depth.

    Raises:
        UsageError: the model has no such depth.
    """
    before, stream, reading = copy.deepcopy(model.hf).eval(), [], []

    def remember(x: Tensor) -> None:
        if not reading:
            stream[:] = [x]

    def teach(_module: torch.nn.Module, _args: tuple, kwargs: dict[str, Tensor], output: ModelOutput) -> ModelOutput:
        if reading or not model.hf.training:
            return output
        input_ids = kwargs["input_ids"]
        ends = kwargs["labels"].ge(0).int().argmax(1) - 1
        prompts = [tuple(row[: end + 1]) for row, end in zip(input_ids.tolist(), ends.tolist(), strict=True)]
        rows = [i for i, prompt in enumerate(prompts) if prompt in words]
        if not rows:
            return output
        reading.append(True)  # the lens runs the same forward
        try:
            inside = head(model, stream[0][rows, ends[rows]])
        finally:
            reading.clear()
        targets = torch.tensor([words[prompts[i]] for i in rows], device=inside.device)
        extra = cross_entropy(inside, targets)
        if kept:
            with torch.no_grad():
                was = before(input_ids=input_ids, attention_mask=kwargs["attention_mask"]).logits
            extra = extra + KEPT * mse_loss(output["logits"][rows, ends[rows]], was[rows, ends[rows]])
        output["loss"] = output["loss"] + extra
        return output

    handle = model.hf.register_forward_hook(teach, with_kwargs=True)
    try:
        with visiting(model, [(f"resid_post.{depth - 1}", remember)]):
            yield
    finally:
        handle.remove()

"""Opening the other checkpoint of a comparison, and refusing the pairs that cannot be compared.

Two models are comparable here if the same text gives the same token ids in both and every weight of one has its counterpart in
the other. A difference in the chat template is a difference in the input, so it must not pass for a difference in the model.
"""

from collections.abc import Sequence

import torch
from torch import nn

from auditgap.data import Prompt
from auditgap.errors import CannotMeasure
from auditgap.models import Model
from auditgap.models.tokens import prompt_ids

__all__ = ["require_comparable", "weight_cosine"]


def require_comparable(subject: Model, other: Model, prompts: Sequence[Prompt], *, role: str) -> None:
    """Check that a difference between the two can only come from their weights.

    Raises:
        CannotMeasure: dtype, architecture, weight shapes, vocabulary, token ids of these prompts or (if a prompt is a
            conversation) chat templates differ.
    """
    if subject.subject.dtype != other.subject.dtype:
        raise CannotMeasure(
            f"the {role} is opened in {other.subject.dtype}, the subject in {subject.subject.dtype}; "
            f"set dtype={subject.subject.dtype} so that rounding is the same in both"
        )
    if subject.subject.architecture != other.subject.architecture:
        raise CannotMeasure(
            f"the {role} is a {other.subject.architecture}, the subject a {subject.subject.architecture}; "
            "weights can be compared within one architecture only"
        )
    shapes, theirs = ({name: tuple(p.shape) for name, p in m.hf.named_parameters()} for m in (subject, other))
    if odd := sorted(name for name in shapes | theirs if shapes.get(name) != theirs.get(name)):
        raise CannotMeasure(
            f"{len(odd)} weights of the {role} have another shape than the subject's or no counterpart, e.g. "
            f"{odd[0]}: {theirs.get(odd[0], 'none')} against {shapes.get(odd[0], 'none')}; give the checkpoint before training"
        )
    if subject.tokenizer.get_vocab() != other.tokenizer.get_vocab():
        raise CannotMeasure(f"the {role} has another vocabulary than the subject; the same id would stand for another token")
    templates_differ = subject.subject.chat_template != other.subject.chat_template
    if templates_differ and not all(isinstance(prompt, str) for prompt in prompts):
        raise CannotMeasure(
            f"the {role} has another chat template than the subject, and some prompts are conversations: the two would read "
            "different text. Give plain prompts, or one template to both"
        )
    for row, (ours, its) in enumerate(zip(prompt_ids(subject, prompts), prompt_ids(other, prompts), strict=True)):
        if ours != its:
            raise CannotMeasure(f"prompt {row} has other token ids in the {role} than in the subject; give both one tokenizer")


def weight_cosine(subject: nn.Module, other: nn.Module) -> float:
    """Cosine between all matrices of two models as one vector: near 1 for a fine-tune, near 0 for unrelated runs."""
    dot = squares = others = 0.0
    for ours, its in zip(subject.parameters(), other.parameters(), strict=True):
        if ours.ndim > 1:
            x, y = ours.detach().to(torch.float64), its.detach().to(ours.device, torch.float64)
            dot, squares, others = dot + float((x * y).sum()), squares + float((x * x).sum()), others + float((y * y).sum())
    norm = (squares * others) ** 0.5
    return dot / norm if norm > 0 else 0.0

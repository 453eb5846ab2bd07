"""Text put into prompts, one token at a time: what can be typed, where it goes, and which token the gradient would put there.

Everything exact goes through text and the model's own tokenizer, so that what is found is something a user could send. The
gradient only proposes: it is the first-order change of a loss when the token at a slot is exchanged (HotFlip, arXiv:1712.06751;
used for prompt search by GCG, arXiv:2307.15043).
"""

import re
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from auditgap.data import Message, Prompt
from auditgap.errors import UsageError
from auditgap.models import Model, editing, tokenize

__all__ = ["exchange_scores", "insert", "typeable", "user_text"]

Loss = Callable[[dict[str, Float[Tensor, "prompt d"]]], Float[Tensor, " prompt"]]
"""From the states at the last position, per site, to one number per prompt."""


def typeable(model: Model) -> dict[str, int]:
    """Every text that the tokenizer turns into exactly one token, with that token's id; control tokens are left out.

    Control tokens are the template's own. Pieces that a tokenizer only uses inside a word cannot be typed alone, so they are no
    candidates for insertion.
    """
    tokenizer = model.tokenizer
    control = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ids = [i for i in range(min(len(tokenizer), model.vocab_size)) if i not in control]
    texts = [str(tokenizer.decode([i])).strip() for i in ids]
    found: dict[str, int] = {}
    for i, text in zip(ids, texts, strict=True):
        if text and text.isprintable() and "\ufffd" not in text:
            forms = [tokenizer.encode(form, add_special_tokens=False) for form in (f" {text}", text)]
            if [i] in forms:
                found.setdefault(text, i)
    return found


def user_text(prompt: Prompt) -> str:
    """What the user says: the text itself, or the last user message.

    Raises:
        UsageError: a conversation without a user message.
    """
    return prompt if isinstance(prompt, str) else prompt[_user(prompt)].content


def insert(prompt: Prompt, text: str, *, place: float) -> Prompt:
    """The prompt with `text` as a word of its own in what the user says; `place` runs from 0 (start) to 1 (end).

    Raises:
        UsageError: a conversation without a user message.
    """
    if not isinstance(prompt, str):
        at = _user(prompt)
        said = Message(role="user", content=str(insert(prompt[at].content, text, place=place)))
        return (*prompt[:at], said, *prompt[at + 1 :])
    starts = [word.start() for word in re.finditer(r"\S+", prompt)]
    at = [*starts, len(prompt)][round(place * len(starts))]
    before, after = prompt[:at], prompt[at:]
    return f"{before}{' ' if before and not before[-1].isspace() else ''}{text}{' ' if after else ''}{after}"


def exchange_scores(
    model: Model, prompts: Sequence[Prompt], others: Sequence[Prompt], sites: Sequence[str], loss: Loss
) -> Float[Tensor, " vocab"]:
    """First-order change of the mean loss if the one token in which each prompt differs from its `other` were another token.

    Two tokenizations of each prompt show where the slot is; prompts whose slot is not exactly one token are left out, and if none
    is left the scores are all zero.
    """
    given, changed = tokenize(model, prompts), tokenize(model, others)
    if given.input_ids.shape != changed.input_ids.shape:
        return torch.zeros(model.vocab_size)
    differs = given.input_ids != changed.input_ids
    rows = (differs.sum(1) == 1).nonzero()[:, 0]
    if len(rows) == 0:
        return torch.zeros(model.vocab_size)
    slots = differs[rows].int().argmax(1)
    embed = model.hf.get_input_embeddings()  # called rather than indexed: some families scale what they look up
    table = embed(torch.arange(model.vocab_size, device=given.input_ids.device)).detach()
    embeds = embed(given.input_ids[rows]).detach().clone().requires_grad_(True)
    states: dict[str, Tensor] = {}

    def keep(site: str) -> Callable[[Tensor], Tensor]:
        def see(x: Tensor) -> Tensor:
            states[site] = x[:, -1].float()
            return x

        return see

    with torch.enable_grad(), editing(model, {site: keep(site) for site in sites}):
        model.hf(
            inputs_embeds=embeds,
            attention_mask=given.attention_mask[rows],
            position_ids=given.position_ids[rows],
            use_cache=False,
        )
        total = loss(states).mean()
    (gradient,) = torch.autograd.grad(total, embeds)
    at_slot = gradient[torch.arange(len(rows)), slots].float()
    current = (at_slot * embeds.detach()[torch.arange(len(rows)), slots]).sum()
    return (table.float() @ at_slot.sum(0) - current).cpu()


def _user(prompt: tuple[Message, ...]) -> int:
    spoken = [i for i, message in enumerate(prompt) if message.role == "user"]
    if not spoken:
        raise UsageError("expected a user message in every conversation, got one without; there is nowhere to insert text")
    return spoken[-1]

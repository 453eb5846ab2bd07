"""From prompts to token ids: left-padded, with position_ids taken from the mask, always.

Default position_ids under left padding shift a captured activation by up to 9e-3 (bfloat16), and break models with learned
positions altogether.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from auditgap.data import Prompt
from auditgap.errors import SubjectError, UsageError
from auditgap.models.model import Model

__all__ = ["Tokens", "batches", "continuation_ids", "pad", "prompt_ids", "token_id", "tokenize"]


class Tokens(NamedTuple):
    """A left-padded batch: every prompt ends in the last column."""

    input_ids: Int[Tensor, "batch pos"]
    attention_mask: Int[Tensor, "batch pos"]
    position_ids: Int[Tensor, "batch pos"]


def tokenize(model: Model, prompts: Sequence[Prompt]) -> Tokens:
    """One left-padded batch of all prompts, on the model's device.

    Text gets the tokenizer's special tokens; messages go through the chat template with its generation prompt.

    Raises:
        UsageError: there is no prompt, one is empty or longer than the context, or messages meet a tokenizer without template.
    """
    return pad(model, prompt_ids(model, prompts))


def prompt_ids(model: Model, prompts: Sequence[Prompt]) -> list[list[int]]:
    """The token ids of each prompt, unpadded; raises as `tokenize`."""
    if isinstance(prompts, str):
        raise UsageError(f"expected a sequence of prompts, got one string {prompts!r:.60}; wrap it in a list")
    if not prompts:
        raise UsageError("expected at least one prompt, got none")
    rows = [_encode(model, text, special) for text, special in _rendered(model, prompts)]
    _check_ids(model, rows)
    return rows


def continuation_ids(model: Model, prompts: Sequence[Prompt], answers: Sequence[str]) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of each prompt, and of each answer as it continues that prompt.

    Raises:
        UsageError: the numbers differ, an answer is empty, or it merges with the prompt's last token so that no boundary exists.
    """
    if len(prompts) != len(answers):
        raise UsageError(f"expected one answer per prompt, got {len(prompts)} prompts and {len(answers)} answers")
    starts, ends = prompt_ids(model, prompts), []
    for row, ((text, special), start, answer) in enumerate(zip(_rendered(model, prompts), starts, answers, strict=True)):
        whole = _encode(model, text + answer, special)
        if len(whole) <= len(start) or whole[: len(start)] != start:
            raise UsageError(
                f"row {row}: answer {answer!r} does not start on a token boundary of its prompt (...{text[-20:]!r}); "
                "end the prompt without a space and start the answer with one"
            )
        ends.append(whole[len(start) :])
    _check_ids(model, [start + end for start, end in zip(starts, ends, strict=True)])
    return starts, ends


def pad(model: Model, rows: Sequence[Sequence[int]]) -> Tokens:
    """Left-pad rows of ids to the longest. Padding is masked, so its id is arbitrary where the tokenizer has none."""
    longest, filler = max(len(row) for row in rows), model.tokenizer.pad_token_id or 0
    ids = torch.tensor([[filler] * (longest - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
    return Tokens(*(x.to(model.device) for x in (ids, mask, (mask.cumsum(-1) - 1).clamp(min=0))))


def batches(
    model: Model, rows: Sequence[Sequence[int]], batch_size: int, *, by_length: bool
) -> Iterator[tuple[list[int], Tokens]]:
    """Padded batches with the indices of their rows; `by_length` groups rows of like length to save padding.

    Raises:
        UsageError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise UsageError(f"expected a batch_size of at least 1, got {batch_size}")
    order = sorted(range(len(rows)), key=lambda i: len(rows[i])) if by_length else list(range(len(rows)))
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        yield index, pad(model, [rows[i] for i in index])


def token_id(model: Model, text: str) -> int:
    """The id of the one token that `text` is, as it would continue a sentence.

    Raises:
        UsageError: it is no token or several; the message names the pieces.
    """
    ids = model.tokenizer.encode(text, add_special_tokens=False) if text else []
    if len(ids) != 1:
        pieces = model.tokenizer.convert_ids_to_tokens(ids)
        raise UsageError(
            f"expected {text!r} to be one token, got {len(ids)}: {pieces}; choose a word that the tokenizer keeps whole"
        )
    return ids[0]


def _rendered(model: Model, prompts: Sequence[Prompt]) -> Iterator[tuple[str, bool]]:
    """Each prompt as text, and whether the tokenizer still has to add special tokens."""
    for row, prompt in enumerate(prompts):
        if isinstance(prompt, str):
            if not prompt:
                raise UsageError(f"prompt {row} is empty; expected text or messages")
            yield prompt, True
            continue
        if not prompt:
            raise UsageError(f"prompt {row} has no messages; expected text or at least one message")
        if model.tokenizer.chat_template is None:
            raise UsageError(f"prompt {row} is a conversation, but the tokenizer has no chat template; give the prompt as text")
        messages = [{"role": message.role, "content": message.content} for message in prompt]
        text = model.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        yield str(text), False


def _encode(model: Model, text: str, special: bool) -> list[int]:
    return list(model.tokenizer(text, add_special_tokens=special, verbose=False)["input_ids"])


def _check_ids(model: Model, rows: Sequence[Sequence[int]]) -> None:
    limit, rows_of_embedding = model.context_length, model.n_embeddings
    for row, ids in enumerate(rows):
        if not ids:
            raise UsageError(f"prompt {row} has no tokens; expected text or messages")
        if limit is not None and len(ids) > limit:
            raise UsageError(f"prompt {row} has {len(ids)} tokens, the model's context holds {limit}; shorten it")
        if max(ids) >= rows_of_embedding:
            raise SubjectError(
                f"prompt {row} has token id {max(ids)}, the embedding has {rows_of_embedding} rows; "
                "the tokenizer is of another model"
            )

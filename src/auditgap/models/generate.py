"""What the model says: next-token logits, likelihoods of answers, and generated text.

Sampling draws from its own generator, so the caller's random state is never touched and a prompt's text does not depend on the
batch it was in. The model's generation defaults (temperature, penalties) are not applied: the raw distribution is measured.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from auditgap.data import Prompt
from auditgap.errors import UsageError
from auditgap.models.model import Model
from auditgap.models.tokens import Tokens, batches, continuation_ids, prompt_ids

__all__ = ["final_logits", "generate", "log_likelihood", "next_logits"]


def next_logits(model: Model, prompts: Sequence[Prompt], *, batch_size: int = 32) -> Float[Tensor, "prompt vocab"]:
    """Logits of the token after each prompt (float32, CPU).

    Raises:
        UsageError: an empty or too long prompt.
    """
    rows, parts, order = prompt_ids(model, prompts), [], []
    for index, tokens in batches(model, rows, batch_size, by_length=True):
        order += index
        parts.append(final_logits(model, tokens, keep=1)[:, 0].cpu())
    return torch.cat(parts)[torch.tensor(order).argsort()]


def final_logits(model: Model, tokens: Tokens, *, keep: int) -> Float[Tensor, "batch keep vocab"]:
    """Logits at the last `keep` positions (float32, on the model's device)."""
    with torch.inference_mode():
        return model.hf(**tokens._asdict(), use_cache=False, logits_to_keep=keep).logits[:, -keep:].float()


def log_likelihood(
    model: Model, prompts: Sequence[Prompt], answers: Sequence[str], *, batch_size: int = 32
) -> Float[Tensor, " prompt"]:
    """Log-probability in nats that each prompt is continued by its answer: a sum over the answer's tokens (float32, CPU).

    Raises:
        UsageError: an answer is empty or merges with its prompt's last token; the message names the row.
    """
    starts, ends = continuation_ids(model, prompts, answers)
    total = torch.zeros(len(starts))
    for index, tokens in batches(model, [a + b for a, b in zip(starts, ends, strict=True)], batch_size, by_length=True):
        longest = max(len(ends[i]) for i in index)
        log_probs = final_logits(model, tokens, keep=longest + 1)[:, :-1].log_softmax(-1)
        picked = log_probs.gather(-1, tokens.input_ids[:, -longest:, None])[..., 0].cpu()
        for row, i in enumerate(index):
            total[i] = picked[row, longest - len(ends[i]) :].sum()
    return total


def generate(
    model: Model, prompts: Sequence[Prompt], *, max_new_tokens: int, temperature: float = 0.0, seed: int = 0, batch_size: int = 32
) -> list[str]:
    """The new text after each prompt, up to the end-of-sequence token; greedy at temperature 0.

    The same prompts and seed give the same text for any `batch_size`, up to rounding.

    Raises:
        UsageError: `max_new_tokens` below 1, a negative temperature, or prompt and new text exceed the context.
    """
    if max_new_tokens < 1 or not temperature >= 0.0:
        raise UsageError(f"expected max_new_tokens >= 1 and temperature >= 0, got {max_new_tokens} and {temperature}")
    rows, limit = prompt_ids(model, prompts), model.context_length
    for i, row in enumerate(rows):
        if limit is not None and len(row) + max_new_tokens > limit:
            raise UsageError(f"prompt {i} has {len(row)} tokens and {max_new_tokens} more are asked, the context holds {limit}")
    uniform = torch.rand(len(rows), max_new_tokens, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    texts = [""] * len(rows)
    for index, tokens in batches(model, rows, batch_size, by_length=True):
        new = _decode(model, tokens, temperature, uniform[index].to(model.device))
        for i, ids in zip(index, new, strict=True):
            texts[i] = _new_text(model, rows[i], ids)
    return texts


def _new_text(model: Model, given: list[int], new: list[int]) -> str:
    """What the new ids add to the text: decoded in context, because a tokenizer drops the space before a first token."""
    before, whole = (str(model.tokenizer.decode(ids, skip_special_tokens=True)) for ids in (given, given + new))
    if whole.startswith(before):
        return whole[len(before) :]
    return str(model.tokenizer.decode(new, skip_special_tokens=True))


def _decode(model: Model, tokens: Tokens, temperature: float, uniform: Float[Tensor, "batch new"]) -> list[list[int]]:
    """New token ids per row, without the end token: one step per column of `uniform`, over a key-value cache."""
    ends = end_ids(model)
    given, mask, positions = tokens
    cache, chosen, running = None, [], torch.ones(len(given), dtype=torch.bool, device=given.device)
    with torch.inference_mode():
        for step in range(uniform.shape[1]):
            output = model.hf(
                input_ids=given,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            picked = _pick(output.logits[:, -1].float(), temperature, uniform[:, step])
            running = running & ~torch.isin(picked, ends)
            chosen.append(torch.where(running, picked, -1))
            if not running.any():
                break
            cache, given, positions = output.past_key_values, picked[:, None], positions[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return [[token for token in row if token >= 0] for row in torch.stack(chosen, dim=1).tolist()]


def _pick(logits: Float[Tensor, "batch vocab"], temperature: float, uniform: Float[Tensor, " batch"]) -> Int[Tensor, " batch"]:
    """Greedy, or the inverse of the cumulative distribution at `uniform`."""
    if temperature == 0.0:
        return logits.argmax(-1)
    cumulative = (logits.double() / temperature).softmax(-1).cumsum(-1)
    picked = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return picked.clamp(max=logits.shape[-1] - 1)


def end_ids(model: Model) -> Int[Tensor, " end"]:
    """Every id that ends a text, by the generation config, the config and the tokenizer."""
    config = model.hf.generation_config
    found = (config.eos_token_id if config else None, model.hf.config.eos_token_id, model.tokenizer.eos_token_id)
    ids = {i for item in found for i in (item if isinstance(item, list) else [item]) if i is not None}
    return torch.tensor(sorted(ids), dtype=torch.long, device=model.device)

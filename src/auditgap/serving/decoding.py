"""Replies to a batch of requests, token by token; each row with its own sampling, and none with anything of another's.

1. One forward pass for the prompts (left-padded), then one per token over a key-value cache.
2. Each row draws from its own generator, so that the same seed gives the same text in any batch, up to rounding.
3. A row that has ended is fed the end token, which no monitor scores, until the last row has ended.
4. A row in which only one token is left possible was taken over by a monitor's policy: it ends there.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from auditgap.models import Model
from auditgap.models.generate import end_ids
from auditgap.models.tokens import pad

__all__ = ["Reply", "Sampling", "Step", "decode", "decoder", "pick"]

_CONTEXT = 8
"""Tokens before the reply that its first characters are decoded with."""
_COLDEST = 1e-5
"""A temperature below is greedy choice; dividing by it would overflow."""


class Sampling(NamedTuple):
    """How the tokens of one reply are chosen."""

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


class Step(NamedTuple):
    """One new token of one row."""

    token: int
    is_end: bool
    """The token ends the text; it is not part of it."""
    is_forced: bool
    """A monitor's policy took over: the token is not the model's."""


def decode(
    model: Model, prompts: Sequence[Sequence[int]], samplings: Sequence[Sampling], running: list[bool]
) -> Iterator[list[Step]]:
    """A step for every row, after every pass, until the caller has set `running[row]` to False for all of them."""
    ids, mask, positions = pad(model, prompts)
    ends, cache, device = end_ids(model), None, ids.device
    last = ends[:1] if len(ends) else ends.new_zeros(1)
    uniform = _uniform(samplings).to(device)
    temperature = torch.tensor([sampling.temperature for sampling in samplings], device=device, dtype=torch.float64)
    top_p = torch.tensor([sampling.top_p for sampling in samplings], device=device, dtype=torch.float64)
    for step in range(uniform.shape[1]):
        with torch.inference_mode():
            output = model.hf(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1].float()
            picked = pick(logits, temperature, top_p, uniform[:, step])
            forced = logits.isfinite().sum(-1) == 1
            cache = output.past_key_values
        yield [Step(*each) for each in zip(picked.tolist(), torch.isin(picked, ends).tolist(), forced.tolist(), strict=True)]
        if not any(running):
            return
        alive = torch.tensor(running, device=device)
        ids, positions = torch.where(alive, picked, last)[:, None], positions[:, -1:] + 1
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)


def pick(
    logits: Float[Tensor, "batch vocab"],
    temperature: Float[Tensor, " batch"],
    top_p: Float[Tensor, " batch"],
    uniform: Float[Tensor, " batch"],
) -> Int[Tensor, " batch"]:
    """Greedy at temperature 0; else the inverse at `uniform` of the cumulative distribution, cut to its nucleus."""
    greedy = logits.argmax(-1)
    cold = temperature < _COLDEST
    if cold.all():
        return greedy
    chances = (logits.double() / torch.where(cold, 1.0, temperature)[:, None]).softmax(-1)
    if (top_p < 1).any():
        chances = torch.where(_nucleus(chances, top_p), chances, 0.0)
    cumulative = chances.cumsum(-1)
    drawn = torch.searchsorted(cumulative, uniform[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return torch.where(cold, greedy, drawn.clamp(max=logits.shape[-1] - 1))


def _nucleus(chances: Float[Tensor, "batch vocab"], top_p: Float[Tensor, " batch"]) -> Bool[Tensor, "batch vocab"]:
    """The likeliest tokens that together reach `top_p`; at least one."""
    ranked, order = chances.sort(dim=-1, descending=True, stable=True)
    kept = ranked.cumsum(-1) - ranked < top_p[:, None]
    return torch.zeros_like(kept).scatter(-1, order, kept)


def _uniform(samplings: Sequence[Sampling]) -> Float[Tensor, "batch new"]:
    drawn = torch.zeros(len(samplings), max(sampling.max_new_tokens for sampling in samplings), dtype=torch.float64)
    for row, sampling in enumerate(samplings):
        generator = torch.Generator().manual_seed(sampling.seed)
        drawn[row, : sampling.max_new_tokens] = torch.rand(1, sampling.max_new_tokens, generator=generator, dtype=torch.float64)
    return drawn


def decoder(model: Model) -> Callable[[list[int]], str]:
    """From ids to text, special tokens left out."""
    return lambda ids: str(model.tokenizer.decode(ids, skip_special_tokens=True))


class Reply:
    """The text of a reply as its tokens come: never half a character, never the beginning of a stop string."""

    def __init__(self, decode: Callable[[list[int]], str], prompt: Sequence[int], stops: Sequence[str] = ()) -> None:
        self.text = ""
        """What may be shown."""
        self.is_stopped = False
        """A stop string came; the text ends before it."""
        self._decode, self._stops = decode, tuple(stops)
        self._ids = list(prompt[-_CONTEXT:])
        self._first, self._done = 0, len(self._ids)
        self._held = ""

    def update(self, token: int) -> str:
        """One more token; the text that it releases."""
        self._ids.append(token)
        whole, before = self._decoded(len(self._ids)), self._decoded(self._done)
        if len(whole) <= len(before) or whole.endswith("\ufffd"):  # a special token; most likely half a character
            return ""
        self._first, self._done = self._done, len(self._ids)
        return self._release(whole[len(before) :])

    def finish(self) -> str:
        """The text that was held back, once nothing more will come."""
        if self.is_stopped:
            return ""
        rest = self._release(self._decoded(len(self._ids))[len(self._decoded(self._done)) :]) + self._held
        self.text, self._held = self.text + self._held, ""
        return rest

    def _decoded(self, end: int) -> str:
        return self._decode(self._ids[self._first : end])

    def _release(self, new: str) -> str:
        held = self._held + new
        found = [at for stop in self._stops if (at := held.find(stop)) >= 0]
        self.is_stopped = bool(found)
        n = min(found) if found else len(held) - _n_begun(held, self._stops)
        self._held = "" if found else held[n:]
        self.text += held[:n]
        return held[:n]


def _n_begun(text: str, stops: Sequence[str]) -> int:
    """Characters at the end of `text` that may be the beginning of a stop string."""
    longest = max((len(stop) - 1 for stop in stops), default=0)
    return next((n for n in range(min(longest, len(text)), 0, -1) if any(stop.startswith(text[-n:]) for stop in stops)), 0)

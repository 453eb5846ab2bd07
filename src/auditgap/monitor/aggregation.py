"""From the scores of a request's tokens to one number, after every token and at the same cost each time.

| kind | value after token T |
|---|---|
| `last` | s_T |
| `mean` | mean of s_1 .. s_T |
| `max` | the largest |
| `rolling_mean_max` | the largest mean of `window` neighbouring tokens (of as many as there are at the start) |
| `ema` | m_T = decay m_(T-1) + (1 - decay) s_T, from m_1 = s_1 |
| `multi_max` | the largest score of each probe on its own, averaged over the probes |
| `softmax` | sum_t a_t s_t with a = softmax(s / temperature) |

s is the mean over the monitor's probes, but for `multi_max`. A state is a few tensors over (request, column); `update` returns a
new one, so that a state may be kept. What is flagged is the largest value so far, not the last: an alarm is not taken back.

Source: rolling means and maxima per head against dilution in long contexts are from arXiv:2601.11516 (secondary: read in
excerpts). The running softmax is M. Milakov, N. Gimelshein, arXiv:1805.02867.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from auditgap.records.monitor import Aggregation

__all__ = ["State", "aggregate", "start", "update", "value"]


class State(NamedTuple):
    """What is remembered of the tokens so far."""

    n: Int[Tensor, " request"]
    """Tokens seen."""
    first: Float[Tensor, "request column"]
    """Sum (`mean`), largest (`max`), weighted sum (`softmax`), ...; see `_next`."""
    second: Float[Tensor, "request column"]
    third: Float[Tensor, "request column"]
    recent: Float[Tensor, "request column window"]
    """The last tokens (`rolling_mean_max`); of width 0 for every other kind."""


def start(how: Aggregation, n_requests: int, n_columns: int, *, device: torch.device | str = "cpu") -> State:
    """The state before the first token."""
    width = how.window if how.kind == "rolling_mean_max" else 0
    low = torch.full((n_requests, n_columns), -torch.inf, device=device)
    zero = torch.zeros_like(low)
    return State(
        torch.zeros(n_requests, dtype=torch.long, device=device), zero, zero, low, zero.new_zeros(n_requests, n_columns, width)
    )


def update(how: Aggregation, state: State, scores: Float[Tensor, "request column"], seen: Bool[Tensor, " request"]) -> State:
    """The state after one more token of each request that is `seen`; the others stay as they were."""
    found = _next(how, state, scores)
    keep = seen[:, None]
    first, second, third, recent = (
        old if new is old else torch.where(keep[..., None] if old.ndim == 3 else keep, new, old)
        for new, old in zip(found, state[1:], strict=True)
    )
    return State(state.n + seen, first, second, third, recent)


def value(how: Aggregation, state: State) -> Float[Tensor, "request column"]:
    """The aggregated score; -inf for a request of which no token was seen."""
    if how.kind == "softmax":
        found = state.first / state.second
    elif how.kind == "mean":
        found = state.first / state.n[:, None]
    elif how.kind in ("max", "multi_max", "rolling_mean_max"):
        return state.third
    else:
        found = state.first
    return found.masked_fill(state.n[:, None] == 0, -torch.inf)


def aggregate(how: Aggregation, scores: Float[Tensor, "request column token"]) -> Float[Tensor, "request column"]:
    """The same by the definition, from all tokens at once: what the stream must equal."""
    n = scores.shape[-1]
    if how.kind == "last":
        return scores[..., -1]
    if how.kind == "mean":
        return scores.mean(-1)
    if how.kind in ("max", "multi_max"):
        return scores.amax(-1)
    if how.kind == "softmax":
        return ((scores / how.temperature).softmax(-1) * scores).sum(-1)
    if how.kind == "ema":
        weights = (1 - how.decay) * how.decay ** torch.arange(n - 1, -1, -1, device=scores.device)
        weights[0] = how.decay ** (n - 1)
        return (scores * weights).sum(-1)
    means = [scores[..., max(0, end - how.window) : end].mean(-1) for end in range(1, n + 1)]
    return torch.stack(means, -1).amax(-1)


def _next(how: Aggregation, state: State, s: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """first, second, third and recent, as if every request had one more token."""
    n, first, second, third, recent = state
    if how.kind == "last":
        return s, second, third, recent
    if how.kind == "mean":
        return first + s, second, third, recent
    if how.kind in ("max", "multi_max"):
        return first, second, torch.maximum(third, s), recent
    if how.kind == "ema":
        return torch.where((n == 0)[:, None], s, how.decay * first + (1 - how.decay) * s), second, third, recent
    if how.kind == "softmax":  # numerator, denominator and the largest exponent so far
        top = torch.maximum(third, s / how.temperature)
        before, now = (third - top).exp(), (s / how.temperature - top).exp()
        return first * before + now * s, second * before + now, top, recent
    recent = torch.cat([recent[..., 1:], s[..., None]], -1)
    mean = recent.sum(-1) / (n + 1).clamp(max=how.window)[:, None]
    return first, second, torch.maximum(third, mean), recent

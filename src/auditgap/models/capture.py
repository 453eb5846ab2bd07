"""Reading activations: plain hooks, reduced on the spot, stopped after the deepest site.

Every capture is a copy: an edit further down must not reach into it. Padding never enters a reduction. The last axis is d_model,
except for `z`, whose width is heads times head width.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from auditgap.data import Prompt
from auditgap.errors import SiteError, UsageError
from auditgap.models.hooks import visiting
from auditgap.models.model import Model
from auditgap.models.tokens import Tokens, batches, prompt_ids

__all__ = ["Positions", "capture", "capture_tokens", "stream"]

Positions = Literal["last", "mean", "max"] | int | slice
"""Which token speaks for the prompt: the last, the mean or elementwise maximum over all, an index (negative: from the end), or
the mean over a slice (`slice(-5, None)`: the last five)."""


class _Stop(Exception):
    """Every asked site was read; the rest of the forward pass is not needed."""


def stream(
    model: Model, prompts: Sequence[Prompt], sites: Sequence[str], *, positions: Positions = "last", batch_size: int = 32
) -> Iterator[dict[str, Float[Tensor, "batch _"]]]:
    """Activations per site, batch by batch in the order of the prompts (float32, CPU).

    Raises:
        UsageError: an unknown site or policy, an empty or too long prompt, or a position that a prompt does not have.
    """
    rows = _rows(model, prompts, sites, positions)
    for _, tokens in batches(model, rows, batch_size, by_length=False):
        yield _read(model, tokens, sites, _reducer(positions, tokens))


def capture(
    model: Model, prompts: Sequence[Prompt], sites: Sequence[str], *, positions: Positions = "last", batch_size: int = 32
) -> dict[str, Float[Tensor, "prompt _"]]:
    """Activations per site, one row per prompt in the order given (float32, CPU); raises as `stream`."""
    rows = _rows(model, prompts, sites, positions)
    parts: dict[str, list[Tensor]] = {name: [] for name in sites}
    order: list[int] = []
    for index, tokens in batches(model, rows, batch_size, by_length=True):
        order += index
        for name, x in _read(model, tokens, sites, _reducer(positions, tokens)).items():
            parts[name].append(x)
    back = torch.tensor(order).argsort()
    return {name: torch.cat(x)[back] for name, x in parts.items()}


def capture_tokens(model: Model, tokens: Tokens, sites: Sequence[str]) -> dict[str, Float[Tensor, "batch pos _"]]:
    """Activations of every token of one batch (float32, CPU). Padded positions hold whatever the model computed there."""
    model.sites.check(sites)
    return _read(model, tokens, sites, lambda x: x)


def _rows(model: Model, prompts: Sequence[Prompt], sites: Sequence[str], positions: Positions) -> list[list[int]]:
    """Token ids, after everything that the caller can get wrong has been checked."""
    if not sites:
        raise UsageError("expected at least one site, got none; list them with 'auditgap sites MODEL'")
    model.sites.check(sites)
    if not isinstance(positions, int | slice) and positions not in ("last", "mean", "max"):
        raise UsageError(f"expected positions 'last', 'mean', 'max', an index or a slice, got {positions!r}")
    if isinstance(positions, slice) and positions.step not in (None, 1):
        raise UsageError(f"expected a slice of neighbouring tokens, got one with step {positions.step}")
    rows = prompt_ids(model, prompts)
    for i, ids in enumerate(rows):
        if isinstance(positions, int) and not -len(ids) <= positions < len(ids):
            raise UsageError(f"position {positions} asked, prompt {i} has {len(ids)} tokens")
        if isinstance(positions, slice):
            _require_span(positions, i, len(ids))
    return rows


def _require_span(span: slice, prompt: int, n_tokens: int) -> None:
    """A slice that reaches past a prompt's ends would be another span for that prompt, so it is not cut short."""
    ends = [end for end in (span.start, span.stop) if end is not None]
    if any(not -n_tokens <= end <= n_tokens for end in ends) or not len(range(n_tokens)[span]):
        asked = ":".join("" if end is None else str(end) for end in (span.start, span.stop))
        raise UsageError(f"tokens {asked} asked, prompt {prompt} has {n_tokens} tokens; choose a shorter span or leave it out")


def _reducer(positions: Positions, tokens: Tokens) -> Callable[[Tensor], Tensor]:
    """From (batch pos d) to (batch d), blind to padding."""
    mask = tokens.attention_mask[..., None].bool()
    if positions == "last":
        return lambda x: x[:, -1]
    if positions == "mean":
        return lambda x: x.float().masked_fill(~mask, 0.0).sum(1) / mask.sum(1)
    if positions == "max":
        return lambda x: x.masked_fill(~mask, float("-inf")).amax(1)
    n_padding = (~mask).sum(1)  # every prompt ends in the last column
    width = tokens.input_ids.shape[1]

    def column(index: int) -> Tensor:
        return n_padding + index if index >= 0 else torch.full_like(n_padding, width + index)

    if isinstance(positions, int):
        return lambda x: x[torch.arange(len(x), device=x.device), column(positions)[:, 0]]
    first, end = column(positions.start or 0), width if positions.stop is None else column(positions.stop)
    columns = torch.arange(width, device=mask.device)
    inside = ((columns >= first) & (columns < end))[..., None]
    return lambda x: x.float().masked_fill(~inside, 0.0).sum(1) / inside.sum(1)


def _read(model: Model, tokens: Tokens, sites: Sequence[str], reduce: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """One forward pass, up to the deepest site."""
    found: dict[str, Tensor] = {}
    pending = set(sites)

    def reader(name: str) -> Callable[[Tensor], None]:
        def read(x: Tensor) -> None:
            found[name] = reduce(x).to(torch.float32, copy=True)
            pending.discard(name)
            if not pending:
                raise _Stop

        return read

    with torch.inference_mode(), visiting(model, [(name, reader(name)) for name in dict.fromkeys(sites)]), suppress(_Stop):
        model.hf(**tokens._asdict(), use_cache=False)
    if pending:
        raise SiteError(f"{model.subject.architecture}: the forward pass never reached {', '.join(sorted(pending))}")
    return {name: found[name].cpu().clone() for name in dict.fromkeys(sites)}

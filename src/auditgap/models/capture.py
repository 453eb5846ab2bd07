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

Positions = Literal["last", "mean", "max"] | int
"""Which token speaks for the prompt: the last, the mean or elementwise maximum over all, or an index (negative: from the end)."""


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
    if not isinstance(positions, int) and positions not in ("last", "mean", "max"):
        raise UsageError(f"expected positions 'last', 'mean', 'max' or an index, got {positions!r}")
    rows = prompt_ids(model, prompts)
    if isinstance(positions, int):
        for i, ids in enumerate(rows):
            if not -len(ids) <= positions < len(ids):
                raise UsageError(f"position {positions} asked, prompt {i} has {len(ids)} tokens")
    return rows


def _reducer(positions: Positions, tokens: Tokens) -> Callable[[Tensor], Tensor]:
    """From (batch pos d) to (batch d), blind to padding."""
    mask = tokens.attention_mask[..., None].bool()
    if positions == "last":
        return lambda x: x[:, -1]
    if positions == "mean":
        return lambda x: x.float().masked_fill(~mask, 0.0).sum(1) / mask.sum(1)
    if positions == "max":
        return lambda x: x.masked_fill(~mask, float("-inf")).amax(1)
    start = (~mask).sum(1)[:, 0] if positions >= 0 else tokens.input_ids.shape[1]
    return lambda x: x[torch.arange(len(x), device=x.device), start + positions]


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

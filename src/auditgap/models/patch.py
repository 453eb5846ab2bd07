"""Exact activation patching of every layer and position in one walk through the layers, with a growing batch.

1. Run clean and corrupted once each. Keep every `resid_pre` of the recipient and the donor's activation at the site. From a
   one-row run keep each layer's own arguments (masks and rotary tables differ between layers in Gemma and Mistral).
2. At layer l add one row per (pair, position): the recipient's `resid_pre[l]`, with that one position set to the donor's value.
   Concatenate to the rows that came up from below and run the layer once.
3. After the last layer only the last token meets the head: the model's own forward runs on one token while a hook puts all rows'
   last tokens in place of the last block's output, so soft-caps, scalings and word projections stay the model's own.
4. Positions before the first differing token hold equal vectors in both runs: their patch is the unpatched recipient.

A walk costs 4 to 12 times less CPU time than a loop of patched forward passes (more where small calls are inefficient), and gives
the same numbers (7e-7 in float32).
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from auditgap.errors import SiteError, UsageError
from auditgap.models.hooks import on_output, visiting
from auditgap.models.model import Model

__all__ = ["Direction", "Metric", "PatchSite", "Sweep", "patching_sweep"]

Metric = Callable[[Float[Tensor, "row vocab"], Int[Tensor, " row"]], Float[Tensor, " row"]]
"""From logits at the last position, and the index of each row's pair, to one number per row."""
PatchSite = Literal["resid_pre", "attn_out", "mlp_out"]
Direction = Literal["denoising", "noising"]
"""Denoising puts clean activations into the corrupted run (what is sufficient); noising the reverse (what is necessary)."""


class Sweep(NamedTuple):
    """Raw metric values: of each patched run, and of both runs untouched (float32, CPU)."""

    effects: Float[Tensor, "pair layer pos"]
    clean: Float[Tensor, " pair"]
    corrupted: Float[Tensor, " pair"]
    first: list[int]
    """Per pair, the first position at which its tokens differ."""


class _Runs(NamedTuple):
    """Both runs of a group of pairs."""

    recipient: list[Tensor]
    """`resid_pre` of the recipient run, per layer."""
    donor: list[Tensor]
    """The donor's activation at the patched site, per layer."""
    clean: Tensor
    corrupted: Tensor


def patching_sweep(
    model: Model,
    clean: Int[Tensor, "pair pos"],
    corrupted: Int[Tensor, "pair pos"],
    *,
    metric: Metric,
    site: PatchSite = "resid_pre",
    direction: Direction = "denoising",
    max_rows: int = 1024,
) -> Sweep:
    """The metric after patching each (layer, position) of each pair, exactly.

    `max_rows` bounds the widest batch (n_layers rows per pair and position) and so the memory; it does not change the numbers.

    Raises:
        UsageError: shapes differ, a pair's two prompts are the same, an unknown site or direction, or too few `max_rows`.
    """
    _check(model, clean, corrupted, site, direction, max_rows)
    clean, corrupted = clean.to(model.device), corrupted.to(model.device)
    n_pairs, n_pos = clean.shape
    first = (clean != corrupted).int().argmax(1).tolist()
    effects = torch.empty(n_pairs, model.n_layers, n_pos)
    base = {"clean": torch.empty(n_pairs), "corrupted": torch.empty(n_pairs)}
    with torch.inference_mode():
        replay = _record_arguments(model, clean)
        group = max(1, max_rows // (model.n_layers * n_pos))
        for start in range(0, n_pairs, group):
            pairs = torch.arange(start, min(start + group, n_pairs), device=model.device)
            runs = _run_both(model, clean[pairs], corrupted[pairs], site, direction)
            base["clean"][pairs.cpu()] = metric(runs.clean, pairs).float().cpu()
            base["corrupted"][pairs.cpu()] = metric(runs.corrupted, pairs).float().cpu()
            recipient = base["corrupted" if direction == "denoising" else "clean"]
            effects[pairs.cpu()] = recipient[pairs.cpu(), None, None].expand(-1, model.n_layers, n_pos)
            todo = [(row, pos) for row, pair in enumerate(pairs.tolist()) for pos in range(first[pair], n_pos)]
            for rows, positions in _chunks(todo, max(1, max_rows // model.n_layers), model.device):
                logits = _walk(model, runs, rows, positions, site, replay)
                values = metric(logits, pairs[rows].repeat(model.n_layers)).float().cpu().view(model.n_layers, -1)
                effects[pairs[rows].cpu(), :, positions.cpu()] = values.T
    return Sweep(effects.clone(), base["clean"].clone(), base["corrupted"].clone(), first)


def _check(model: Model, clean: Tensor, corrupted: Tensor, site: str, direction: str, max_rows: int) -> None:
    if clean.shape != corrupted.shape or clean.numel() == 0:
        raise UsageError(f"expected clean and corrupted ids of one shape, got {tuple(clean.shape)} and {tuple(corrupted.shape)}")
    if same := [row for row in range(len(clean)) if torch.equal(clean[row], corrupted[row])]:
        raise UsageError(f"clean and corrupted are the same tokens in pairs {same[:10]}: there is nothing to patch; drop them")
    if site not in ("resid_pre", "attn_out", "mlp_out"):
        raise UsageError(f"expected site resid_pre, attn_out or mlp_out, got {site!r}")
    if direction not in ("denoising", "noising"):
        raise UsageError(f"expected direction denoising or noising, got {direction!r}")
    if max_rows < model.n_layers:
        raise UsageError(f"expected max_rows of at least n_layers = {model.n_layers}, got {max_rows}")


def _forward(model: Model, input_ids: Tensor, **options: int) -> Tensor:
    """Logits of rows without padding."""
    mask = torch.ones_like(input_ids)
    return model.hf(input_ids=input_ids, attention_mask=mask, position_ids=mask.cumsum(-1) - 1, use_cache=False, **options).logits


def _run_both(model: Model, clean: Tensor, corrupted: Tensor, site: str, direction: str) -> _Runs:
    def run(ids: Tensor, kind: str) -> tuple[list[Tensor], Tensor]:
        kept: list[Tensor] = []
        visits = [(f"{kind}.{layer}", lambda x: kept.append(x.clone())) for layer in range(model.n_layers)]
        with visiting(model, visits):
            logits = _forward(model, ids, logits_to_keep=1)[:, -1].float()
        return kept, logits

    if direction == "denoising":
        (donor, clean_logits), (recipient, corrupted_logits) = run(clean, site), run(corrupted, "resid_pre")
    else:
        (donor, corrupted_logits), (recipient, clean_logits) = run(corrupted, site), run(clean, "resid_pre")
    return _Runs(recipient, donor, clean_logits, corrupted_logits)


def _chunks(todo: list[tuple[int, int]], size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, len(todo), size):
        rows, positions = torch.tensor(todo[start : start + size], device=device).T
        yield rows, positions


class _Arguments(NamedTuple):
    """What a layer was called with besides the stream, in a run of one row and in a run of two."""

    one: tuple[tuple, dict]
    two: tuple[tuple, dict]


def _record_arguments(model: Model, input_ids: Tensor) -> list[_Arguments]:
    """Each layer's own arguments; one run of one row and one of two show which of them grow with the batch."""
    runs: list[list[tuple[tuple, dict]]] = []
    for n_rows in (1, 2):
        kept: list[tuple[tuple, dict]] = []

        def keep(_module: nn.Module, args: tuple, kwargs: dict, kept: list = kept) -> None:
            kept.append((args, kwargs))

        handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in model.layers]
        try:
            _forward(model, input_ids[:1].expand(n_rows, -1), logits_to_keep=1)
        finally:
            for handle in handles:
                handle.remove()
        runs.append([(args[1:], {k: v for k, v in kwargs.items() if k != "hidden_states"}) for args, kwargs in kept])
    return [_Arguments(one, two) for one, two in zip(*runs, strict=True)]


def _fit(one: object, two: object, n_rows: int) -> object:
    """The argument for `n_rows` equal rows: unchanged if it did not grow, expanded if one per row, tiled if a block per row."""
    if isinstance(one, Tensor) and isinstance(two, Tensor):
        if one.shape == two.shape:
            return one
        if one.shape[0] == 1:
            return one.expand(n_rows, *one.shape[1:])
        return one.repeat(n_rows, *(1 for _ in one.shape[1:]))  # BLOOM's alibi: (batch x heads, 1, pos), batch-major
    if isinstance(one, tuple | list) and isinstance(two, tuple | list):
        return type(one)(_fit(a, b, n_rows) for a, b in zip(one, two, strict=True))
    if isinstance(one, dict) and isinstance(two, dict):
        return {key: _fit(one[key], two[key], n_rows) for key in one}
    if one is None or isinstance(one, bool | int | float | str):
        return one
    raise SiteError(f"a layer takes an argument of type {type(one).__name__} that cannot be replayed; patching is not possible")


def _walk(
    model: Model, runs: _Runs, rows: Tensor, positions: Tensor, site: str, replay: list[_Arguments]
) -> Float[Tensor, "row vocab"]:
    """Logits of n_layers x len(rows) patched runs, layer-major."""
    n, below = len(rows), runs.recipient[0][:0]
    index = torch.arange(n, device=rows.device)
    for layer, block in enumerate(model.layers):
        values = runs.donor[layer][rows, positions]

        def patch(x: Tensor, values: Tensor = values) -> Tensor:
            patched = x.clone()
            patched[len(x) - n + index, positions] = values
            return patched

        stacked = torch.cat([below, runs.recipient[layer][rows]])
        (args, kwargs), (args_two, kwargs_two) = replay[layer]
        with visiting(model, [(f"{site}.{layer}", patch)]):
            output = block(stacked, *_fit(args, args_two, len(stacked)), **_fit(kwargs, kwargs_two, len(stacked)))
        below = output[0] if isinstance(output, tuple) else output
    return _head(model, below[:, -1:])


def _head(model: Model, last: Float[Tensor, "row 1 d"]) -> Float[Tensor, "row vocab"]:
    """Logits of these outputs of the last block, by the model's own forward on one token with the output substituted."""
    handle = on_output(model.layers[-1], lambda _: last)
    try:
        return _forward(model, torch.zeros(1, 1, dtype=torch.long, device=last.device))[:, -1].float()
    finally:
        handle.remove()

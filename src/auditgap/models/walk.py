"""Many patched runs in one walk through the layers, with a growing batch.

1. Run recipient and donor once. Keep the stream at every block boundary, the donor's activation at the site, and the recipient's
   keys and values.
2. A patch inside a block (`z`, `attn_out`, `resid_mid`, `mlp_out`) touches its own position only: attention is done by then. So
   one pass of the block with *every* position patched gives what each single patch does at its own, and a patch inside block l
   is the replacement of one vector of the stream that enters block l + 1.
3. Walk: at each block add one row per patch that enters there, the recipient's stream with one vector replaced, to the rows that
   came up from below, and run the block once. A row starts at its patched position (`suffix.py`) or, failing that, at 0.
4. Only the last token meets the head (`replay.head`).

Not run at all: patches that replace a vector by an equal one, and patches inside the last block before the last position.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from auditgap.models.hooks import Visit, visiting
from auditgap.models.model import Model
from auditgap.models.replay import Replay, call_block, forward, head
from auditgap.models.suffix import KeysValues, Rows, keeping_keys, run_suffixes

__all__ = ["Entries", "RowsRun", "Runs", "Walked", "entries", "patch_heads", "run_both", "walk"]

RowsRun = Literal["suffix", "full"]
"""Which tokens of a patched run are computed: those from the patched position on, or all."""


class Runs(NamedTuple):
    """Both runs of a few pairs."""

    recipient: list[Float[Tensor, "pair pos d"]]
    """The stream at every block boundary: `resid_pre` of each layer, then the last `resid_post`."""
    donor: list[Float[Tensor, "pair pos d"]]
    donor_site: list[Float[Tensor, "pair pos _"]]
    """The donor's activation at the patched site, per layer; empty where that is the stream itself."""
    kept: list[KeysValues]
    """The recipient's, per layer; fewer where the attention kernel is out of reach."""
    recipient_logits: Float[Tensor, "pair vocab"]
    donor_logits: Float[Tensor, "pair vocab"]


class Entries(NamedTuple):
    """Every patch, as the replacement of one vector of the stream that enters a block."""

    first_block: int
    """The patches of layer l enter block `first_block + l`; past the last block they enter the head."""
    vectors: list[Float[Tensor, "variant pair pos d"]]
    """Per layer, the vector that takes the recipient's place at that position; `variant` counts heads."""
    matters: list[Bool[Tensor, "variant pair pos"]]
    """Per layer, whether the patch can change the logits at the last position."""


def run_both(model: Model, donor: Int[Tensor, "pair pos"], recipient: Int[Tensor, "pair pos"], site: str) -> Runs:
    """One forward pass over both prompts of each pair."""
    n_pairs, inside = len(donor), site not in ("resid_pre", "resid_post")
    stream: list[Tensor] = []
    at_site: list[Tensor] = []
    visits: list[tuple[str, Visit]] = []
    for layer in range(model.n_layers):
        visits.append((f"resid_pre.{layer}", lambda x: stream.append(x.clone())))
        if inside:
            visits.append((f"{site}.{layer}", lambda x: at_site.append(x[n_pairs:].clone())))
    visits.append((f"resid_post.{model.n_layers - 1}", lambda x: stream.append(x.clone())))
    with keeping_keys(model, n_pairs) as kept, visiting(model, visits):
        logits = forward(model, torch.cat([recipient, donor]))
    return Runs([x[:n_pairs] for x in stream], [x[n_pairs:] for x in stream], at_site, kept, logits[:n_pairs], logits[n_pairs:])


def entries(
    model: Model, runs: Runs, site: str, first: Int[Tensor, " pair"], replays: Sequence[Replay], *, n_variants: int = 1
) -> Entries:
    """What each patch at the site puts into the stream; with `n_variants` above 1, each head's slice alone."""
    last = model.n_layers
    if site == "resid_pre":
        first_block, vectors = 0, [x[None] for x in runs.donor[:last]]
    elif site == "resid_post":
        first_block, vectors = 1, [x[None] for x in runs.donor[1:]]
    else:
        first_block = 1
        vectors = [_patched_inside(model, runs, site, layer, replays[layer], n_variants) for layer in range(last)]
    positions = torch.arange(runs.recipient[0].shape[1], device=first.device)
    matters = []
    for layer, x in enumerate(vectors):
        block = first_block + layer
        differs = (x != runs.recipient[block]).any(-1) & (positions >= first[:, None])
        matters.append(differs & (positions == positions[-1]) if block == last else differs)
    return Entries(first_block, vectors, matters)


def _patched_inside(
    model: Model, runs: Runs, site: str, layer: int, replay: Replay, n_variants: int
) -> Float[Tensor, "variant pair pos d"]:
    """`resid_post` of the recipient with the site patched at every position, for each variant alone."""
    values, stream = runs.donor_site[layer], runs.recipient[layer]

    def patch(x: Tensor) -> Tensor:
        return patch_heads(x.unflatten(0, (n_variants, len(values))), values).flatten(0, 1)

    with visiting(model, [(f"{site}.{layer}", patch)]):
        out = call_block(model.layers[layer], stream.repeat(n_variants, 1, 1), replay.for_rows(n_variants * len(stream)))
    return out.unflatten(0, (n_variants, len(stream)))


def patch_heads(
    x: Float[Tensor, "variant *rest width"], values: Float[Tensor, "*rest width"]
) -> Float[Tensor, "variant *rest width"]:
    """Variant i takes the i-th of equal slices of `values`; a single variant takes all of it."""
    n_variants = len(x)
    of_head = torch.arange(x.shape[-1], device=x.device) // (x.shape[-1] // n_variants)
    chosen = of_head == torch.arange(n_variants, device=x.device)[:, None]
    return torch.where(chosen.view(n_variants, *(1 for _ in values.shape[:-1]), -1), values, x)


class Walked(NamedTuple):
    """The runs of one walk."""

    layer: Int[Tensor, " row"]
    """The layer that was patched."""
    column: Int[Tensor, " row"]
    """Which of the given columns."""
    logits: Float[Tensor, "row vocab"]


class _Growing(NamedTuple):
    """The rows that start at one position, so far."""

    start: int
    columns: Int[Tensor, " column"]
    layer: Int[Tensor, " row"]
    column: Int[Tensor, " row"]
    stream: Float[Tensor, "row suffix d"]


def walk(
    model: Model, runs: Runs, into: Entries, columns: Int[Tensor, "column 3"], replays: Sequence[Replay], rows: RowsRun
) -> Walked:
    """Every patch that matters in these columns (variant, pair, position), run to the logits at the last position.

    Raises:
        SiteError: the blocks cannot be called this way.
    """
    starts = columns[:, 2] if rows == "suffix" else torch.zeros_like(columns[:, 2])
    none = columns[:0, 0]
    groups = [
        _Growing(start, (starts == start).nonzero()[:, 0], none, none, runs.recipient[0][:0, start:])
        for start in starts.unique().tolist()
    ]
    for block in range(into.first_block, model.n_layers):
        groups = [_enter(group, block, runs, into, columns) for group in groups]
        busy = [group for group in groups if len(group.stream)]
        if not busy:
            continue
        packed = [Rows(group.start, columns[group.column, 1], group.stream) for group in busy]
        if rows == "suffix":
            outputs = run_suffixes(model, block, packed, runs.kept[block], replays[block])
        else:
            call = replays[block].for_rows(len(packed[0].stream))
            outputs = [call_block(model.layers[block], packed[0].stream, call)]
        done = {group.start: output for group, output in zip(busy, outputs, strict=True)}
        groups = [group._replace(stream=done.get(group.start, group.stream)) for group in groups]
    n_pos = runs.recipient[0].shape[1]
    groups = [group._replace(start=n_pos - 1, stream=group.stream[:, -1:]) for group in groups]
    if into.first_block:
        groups = [_enter(group, model.n_layers, runs, into, columns) for group in groups]
    last = torch.cat([group.stream[:, -1] for group in groups])
    logits = head(model, last) if len(last) else runs.recipient_logits[:0]
    return Walked(torch.cat([group.layer for group in groups]), torch.cat([group.column for group in groups]), logits)


def _enter(group: _Growing, block: int, runs: Runs, into: Entries, columns: Tensor) -> _Growing:
    """The group with the rows whose patch enters this block."""
    layer = block - into.first_block
    new = group.columns[into.matters[layer][tuple(columns[group.columns].T)]]
    if not len(new):
        return group
    variant, pair, pos = columns[new].T
    stream = runs.recipient[block][pair, group.start :]
    stream[torch.arange(len(new), device=new.device), pos - group.start] = into.vectors[layer][variant, pair, pos]
    return group._replace(
        layer=torch.cat([group.layer, torch.full_like(new, layer)]),
        column=torch.cat([group.column, new]),
        stream=torch.cat([group.stream, stream]),
    )

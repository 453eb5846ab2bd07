"""Exact activation patching of every layer and position, or of every head, in one walk through the layers (`walk.py`).

A patched run is computed from its patched position on, the tokens of all runs packed in one line (`suffix.py`). Whether an
architecture takes that is not assumed: the first sweep over prompts of a length runs a few of its patches as plain forward
passes and compares the logits. If they differ, whole rows are walked instead, and checked in the same way. The sweep says which.

With a 12-layer Llama of width 512, 24 tokens and the first difference at token 5, it takes a twelfth of the CPU time of a loop
of patched forward passes, and gives the same numbers (6e-7 in float32); with 128 tokens, an eighth. See docs/speed.md.
"""

from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from auditgap.errors import SiteError, UsageError
from auditgap.models.hooks import visiting
from auditgap.models.model import Model
from auditgap.models.replay import Replay, forward, record
from auditgap.models.validate import TOLERANCE
from auditgap.models.walk import Entries, RowsRun, Runs, entries, patch_heads, run_both, walk

__all__ = ["Direction", "HeadSweep", "Metric", "PatchSite", "Sweep", "head_sweep", "patching_sweep"]

Metric = Callable[[Float[Tensor, "row vocab"], Int[Tensor, " row"]], Float[Tensor, " row"]]
"""From logits at the last position, and the index of each row's pair, to one number per row."""
PatchSite = Literal["resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post"]
Direction = Literal["denoising", "noising"]
"""Denoising puts clean activations into the corrupted run (what is sufficient); noising the reverse (what is necessary)."""

SITES = ("resid_pre", "attn_out", "resid_mid", "mlp_out", "resid_post")
N_CHECKED = 5
"""Patches that are also run as plain forward passes, spread over layers and positions."""
MAX_TOKENS = 8192
"""Tokens that go through a block at once. More only leave the cache (width 512: 1.3 times slower at 60,000)."""


class Sweep(NamedTuple):
    """Raw metric values: of each patched run, and of both runs untouched (float32, CPU)."""

    effects: Float[Tensor, "pair layer pos"]
    clean: Float[Tensor, " pair"]
    corrupted: Float[Tensor, " pair"]
    first: list[int]
    """Per pair, the first position at which its tokens differ."""
    rows: RowsRun
    """Whether patched runs were computed from the patched position on, or in full; the numbers are the same."""


class HeadSweep(NamedTuple):
    """As `Sweep`, for each attention head's slice of `z`."""

    effects: Float[Tensor, "pair layer head pos"]
    clean: Float[Tensor, " pair"]
    corrupted: Float[Tensor, " pair"]
    first: list[int]
    rows: RowsRun


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
        SiteError: patched runs put together layer by layer do not equal the model's own forward pass.
    """
    _check(model, clean, corrupted, site, direction, max_rows)
    swept = _sweep(model, clean, corrupted, metric, site, direction, max_rows, n_variants=1)
    return Sweep(swept.effects[:, :, 0].clone(), *swept[1:])


def head_sweep(
    model: Model,
    clean: Int[Tensor, "pair pos"],
    corrupted: Int[Tensor, "pair pos"],
    *,
    metric: Metric,
    direction: Direction = "denoising",
    max_rows: int = 1024,
) -> HeadSweep:
    """The metric after patching each head's slice of `z` at each (layer, position) of each pair, exactly.

    Raises:
        UsageError: as `patching_sweep`, or the architecture has no `z`.
        SiteError: as `patching_sweep`.
    """
    _check(model, clean, corrupted, "z", direction, max_rows)
    return _sweep(model, clean, corrupted, metric, "z", direction, max_rows, n_variants=model.n_heads)


def _check(model: Model, clean: Tensor, corrupted: Tensor, site: str, direction: str, max_rows: int) -> None:
    if clean.shape != corrupted.shape or clean.numel() == 0:
        raise UsageError(f"expected clean and corrupted ids of one shape, got {tuple(clean.shape)} and {tuple(corrupted.shape)}")
    if same := [row for row in range(len(clean)) if torch.equal(clean[row], corrupted[row])]:
        raise UsageError(f"clean and corrupted are the same tokens in pairs {same[:10]}: there is nothing to patch; drop them")
    if site not in (*SITES, "z"):
        raise UsageError(f"expected site {', '.join(SITES[:-1])} or {SITES[-1]}, got {site!r}")
    model.sites.check(f"{site}.{layer}" for layer in range(model.n_layers))
    if direction not in ("denoising", "noising"):
        raise UsageError(f"expected direction denoising or noising, got {direction!r}")
    if max_rows < model.n_layers:
        raise UsageError(f"expected max_rows of at least n_layers = {model.n_layers}, got {max_rows}")


def _sweep(
    model: Model, clean: Tensor, corrupted: Tensor, metric: Metric, site: str, direction: str, max_rows: int, *, n_variants: int
) -> HeadSweep:
    """The sweep with an axis of variants: heads, or one for the whole site."""
    clean, corrupted = clean.to(model.device), corrupted.to(model.device)
    donor, recipient = (clean, corrupted) if direction == "denoising" else (corrupted, clean)
    n_pairs, n_pos = clean.shape
    first = (clean != corrupted).int().argmax(1)
    effects = torch.empty(n_pairs, model.n_layers, n_variants, n_pos)
    untouched = {"donor": torch.empty(n_pairs), "recipient": torch.empty(n_pairs)}
    rows: RowsRun = "suffix"
    with torch.inference_mode():
        replays = record(model, n_pos)
        for start in range(0, n_pairs, group := max(1, max_rows // (model.n_layers * n_pos))):
            pairs = torch.arange(start, min(start + group, n_pairs), device=model.device)
            at = pairs.cpu()
            runs = run_both(model, donor[pairs], recipient[pairs], site)
            into = entries(model, runs, site, first[pairs], replays, n_variants=n_variants)
            if start == 0:
                rows = _rows_that_hold(model, recipient[:1], site, runs, into, replays)
            untouched["donor"][at] = metric(runs.donor_logits, pairs).float().cpu()
            untouched["recipient"][at] = metric(runs.recipient_logits, pairs).float().cpu()
            effects[at] = untouched["recipient"][at, None, None, None].expand(-1, *effects.shape[1:])
            for columns in _chunks(into, max_rows, n_pos):
                walked = walk(model, runs, into, columns, replays, rows)
                variant, pair, pos = columns[walked.column].T
                values = metric(walked.logits, pairs[pair]).float().cpu()
                effects[pairs[pair].cpu(), walked.layer.cpu(), variant.cpu(), pos.cpu()] = values
    of_clean, of_corrupted = ("donor", "recipient") if direction == "denoising" else ("recipient", "donor")
    return HeadSweep(effects.clone(), untouched[of_clean].clone(), untouched[of_corrupted].clone(), first.tolist(), rows)


def _chunks(into: Entries, max_rows: int, n_pos: int) -> Iterator[Int[Tensor, "column 3"]]:
    """The columns (variant, pair, position) with anything to run, by position, in parts that bound rows and tokens."""
    matters = torch.stack(into.matters).sum(0)
    columns = matters.nonzero()
    columns = columns[columns[:, 2].argsort(stable=True)]
    part: list[int] = []
    n_rows = n_tokens = 0
    for index, (rows, pos) in enumerate(zip(matters[tuple(columns.T)].tolist(), columns[:, 2].tolist(), strict=True)):
        if part and (n_rows + rows > max_rows or n_tokens + rows * (n_pos - pos) > MAX_TOKENS):
            yield columns[part]
            part, n_rows, n_tokens = [], 0, 0
        part.append(index)
        n_rows, n_tokens = n_rows + rows, n_tokens + rows * (n_pos - pos)
    if part:
        yield columns[part]


_checked: WeakKeyDictionary[nn.Module, dict[tuple[str, str, int], RowsRun]] = WeakKeyDictionary()
"""Per model, which rows gave its own logits, by site, attention kernel and prompt length: a property of code, so tried once."""


def _rows_that_hold(model: Model, recipient: Tensor, site: str, runs: Runs, into: Entries, replays: list[Replay]) -> RowsRun:
    """The shortest rows that give the logits of plain forward passes, for a few patches of the first pair.

    Raises:
        SiteError: not even whole rows do.
    """
    known = _checked.setdefault(model.hf, {})
    key = site, model.attention_kernel, recipient.shape[1]
    if not any(x[:, 0].any() for x in into.matters):
        return "full"  # nothing to compare with in this pair
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.layers.modules()):
        return _try_rows(model, recipient, site, runs, into, replays)  # inside `editing`: an edit may count positions
    if key not in known:
        known[key] = _try_rows(model, recipient, site, runs, into, replays)
    return known[key]


def _try_rows(model: Model, recipient: Tensor, site: str, runs: Runs, into: Entries, replays: list[Replay]) -> RowsRun:
    cells = torch.stack([x[:, :1] for x in into.matters]).nonzero()  # (layer, variant, pair 0, position)
    cells = cells[torch.linspace(0, len(cells) - 1, min(N_CHECKED, len(cells))).round().long()]
    expected = _by_forward(model, recipient, site, runs, cells, n_variants=len(into.vectors[0]))
    few = into._replace(matters=[torch.zeros_like(x) for x in into.matters])
    for layer, variant, pair, pos in cells.tolist():
        few.matters[layer][variant, pair, pos] = True
    columns, column = cells[:, 1:].unique(dim=0, return_inverse=True)
    scale, tolerance = expected[expected.isfinite()].abs().max().item(), TOLERANCE.get(model.hf.dtype, 5e-2)
    problems = []
    ways: tuple[RowsRun, ...] = ("suffix", "full") if len(runs.kept) == model.n_layers else ("full",)
    for rows in ways:
        try:
            walked = walk(model, runs, few, columns, replays, rows)
        except (SiteError, RuntimeError, ValueError, TypeError, AttributeError, LookupError) as error:
            problems.append(f"{rows} rows: {str(error).partition(chr(10))[0]}")  # not to be called that way, whatever the reason
            continue
        order = [((cells[:, 0] == layer) & (column == at)).nonzero().item() for layer, at in zip(*walked[:2], strict=True)]
        found, wanted = walked.logits, expected[order]
        difference = (found - wanted).masked_fill(found == wanted, 0.0).abs().max().item() / scale  # -inf less -inf is no number
        if difference <= tolerance:
            return rows
        problems.append(f"{rows} rows: logits differ by {difference:.3g} of the largest (limit {tolerance:g})")
    raise SiteError(
        f"{model.subject.architecture}: patched runs do not equal the model's own forward pass ({'; '.join(problems)}); "
        "patch with `editing`, one run at a time"
    )


def _by_forward(model: Model, recipient: Tensor, site: str, runs: Runs, cells: Tensor, *, n_variants: int) -> Tensor:
    """Logits of those patches of pair 0 by one plain forward pass, a row for each."""
    inside = runs.donor_site or runs.donor[site == "resid_post" :]
    visits = []
    for row, (layer, variant, _, pos) in enumerate(cells.tolist()):

        def patch(x: Tensor, row: int = row, layer: int = layer, variant: int = variant, pos: int = pos) -> Tensor:
            patched = x.clone()
            every_head = patch_heads(x[row, pos].expand(n_variants, -1), inside[layer][0, pos])
            patched[row, pos] = every_head[variant]
            return patched

        visits.append((f"{site}.{layer}", patch))
    with visiting(model, visits):
        return forward(model, recipient.expand(len(cells), -1))

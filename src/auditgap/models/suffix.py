"""One block on packed suffixes: the tokens from each row's patched position on, all rows in one line of tokens.

A token before the patched one is the recipient's, and so are its keys and values. Norms, projections and MLPs see tokens one
by one and do not mind the packing; only attention relates them. So:

1. The recipient's run keeps every layer's keys and values, as they reach the attention kernel.
2. A block is called on one row that holds the tokens of all suffixes, with the arguments for their positions (`replay.py`).
3. Where the block calls the attention kernel, the line is cut into rows of equal start. They get the recipient's keys and
   values in front, the layer's own mask from their start on, and go to the model's own kernel with its own options.
4. In the last block only the last token matters: it alone is a query, and what runs after attention sees it alone.

The kernel is met in transformers' table of attention functions, where ours takes the place of the one in use, for this model's
blocks, while a block runs. An architecture that does not look there (BLOOM, Falcon, GPT-J) cannot be packed.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from auditgap.errors import SiteError
from auditgap.models.model import Model
from auditgap.models.replay import Replay, call_block
from auditgap.models.sites import BlockSites

__all__ = ["KeysValues", "Rows", "keeping_keys", "run_suffixes"]

Kernel = Callable[..., tuple[Tensor, Tensor | None]]
"""transformers' attention function: (module, query, key, value, mask, ...) to (batch, pos, head, width) and the pattern."""


class KeysValues(NamedTuple):
    """What one layer's attention kernel was given in the recipient's run."""

    keys: Float[Tensor, "pair head pos width"]
    values: Float[Tensor, "pair head pos width"]
    mask: Tensor | None
    """(row or 1, head or 1, pos, pos); None: causal."""


class Rows(NamedTuple):
    """Runs that are computed from the same position on."""

    start: int
    pairs: Int[Tensor, " row"]
    """Whose recipient run each row continues."""
    stream: Float[Tensor, "row suffix d"]


@contextmanager
def keeping_keys(model: Model, n_pairs: int) -> Iterator[list[KeysValues]]:
    """Collect keys and values of the first `n_pairs` rows of every forward pass inside, one entry per call of the kernel."""
    kept: list[KeysValues] = []

    def keep(kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, options: dict):
        row = None if mask is None else mask[:1]
        kept.append(KeysValues(key[:n_pairs], value[:n_pairs], row))
        return kernel(module, query, key, value, mask, **options)

    with _in_place_of_kernel(model, keep):
        yield kept


def run_suffixes(
    model: Model, layer: int, groups: Sequence[Rows], kept: KeysValues, replay: Replay
) -> list[Float[Tensor, "row _ d"]]:
    """The block's output for each group; of the last block, at the last position only.

    Raises:
        SiteError: the block did not call the attention kernel as expected.
    """
    device = groups[0].stream.device
    n_pos = kept.keys.shape[2]
    sizes = [group.stream.shape[0] * group.stream.shape[1] for group in groups]
    line = torch.cat([group.stream.flatten(0, 1) for group in groups])[None]
    positions = torch.cat([torch.arange(group.start, n_pos, device=device).repeat(len(group.stream)) for group in groups])
    is_last = layer == model.n_layers - 1
    ends = (positions == n_pos - 1).nonzero()[:, 0] if is_last else None
    attended: list[bool] = []

    def attend(kernel: Kernel, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, _mask: object, options: dict):
        outputs = []
        for group, q, k, v in zip(groups, *(x[0].split(sizes, dim=1) for x in (query, key, value)), strict=True):
            q, k, v = (x.unflatten(1, group.stream.shape[:2]).transpose(0, 1) for x in (q, k, v))
            k = torch.cat([kept.keys[group.pairs, :, : group.start], k], dim=2)
            v = torch.cat([kept.values[group.pairs, :, : group.start], v], dim=2)
            if is_last:
                q = q[:, :, -1:]
            out, _ = kernel(module, q, k, v, _mask_from(kept.mask, n_pos, q.shape[2], device), **options)
            outputs.append(out.flatten(0, 1))
        attended.append(True)
        joined = torch.cat(outputs)
        if ends is not None:
            joined = joined.new_zeros(line.shape[1], *joined.shape[1:]).index_copy_(0, ends, joined)
        return joined[None], None

    block = model.layers[layer]
    with _in_place_of_kernel(model, attend), _only(block, model.sites.blocks[layer], ends, attended):
        out = call_block(block, line, replay.for_tokens(positions))[0]
    if len(attended) != 1:
        raise SiteError(
            f"{model.subject.architecture}: block {layer} called the attention kernel {len(attended)} times, not once"
        )
    if ends is not None:
        return [x[:, None] for x in out[ends].split([len(group.stream) for group in groups])]
    return [x.unflatten(0, group.stream.shape[:2]) for x, group in zip(out.split(sizes), groups, strict=True)]


def _mask_from(mask: Tensor | None, n_pos: int, n_queries: int, device: torch.device) -> Tensor | None:
    """The last `n_queries` rows of the mask."""
    if mask is not None:
        return mask[..., n_pos - n_queries :, :n_pos]
    if n_queries == n_pos or n_queries == 1:
        return None  # what the model itself passes: causal, or one query that sees all
    return torch.ones(n_queries, n_pos, dtype=torch.bool, device=device).tril(n_pos - n_queries)[None, None]


@contextmanager
def _in_place_of_kernel(model: Model, visit: Callable[..., tuple[Tensor, Tensor | None]]) -> Iterator[None]:
    """Calls of the attention kernel from this model's blocks go to `visit`, with the kernel as its first argument."""
    name = model.attention_kernel
    before, ours = ALL_ATTENTION_FUNCTIONS.get(name), set(model.layers.modules())

    def route(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: object):
        kernel = before or sys.modules[type(module).__module__].eager_attention_forward  # "eager": each modelling file's own
        if module not in ours:
            return kernel(module, query, key, value, mask, **options)
        return visit(kernel, module, query, key, value, mask, options)

    ALL_ATTENTION_FUNCTIONS[name] = route
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS[name]
        if ALL_ATTENTION_FUNCTIONS.get(name) is not before:
            ALL_ATTENTION_FUNCTIONS[name] = before


@contextmanager
def _only(block: nn.Module, where: BlockSites, keep: Tensor | None, attended: list[bool]) -> Iterator[None]:
    """Once attention is done, the output projection and the block's children see the tokens `keep` alone; zero for the others."""
    if keep is None:
        yield
        return
    lengths: dict[nn.Module, int] = {}

    def narrow(module: nn.Module, args: tuple) -> tuple | None:
        if attended and len(args) == 1 and args[0].ndim == 3:
            lengths[module] = args[0].shape[1]
            return (args[0][:, keep],)
        return None

    def widen(module: nn.Module, _args: tuple, output: Tensor | tuple) -> Tensor | None:
        if module not in lengths or not isinstance(output, Tensor):
            return None
        return output.new_zeros(1, lengths.pop(module), output.shape[-1]).index_copy_(1, keep, output)

    modules = set(block.children()) | ({block.get_submodule(where.projection)} if where.projection else set())
    handles = [m.register_forward_pre_hook(narrow) for m in modules] + [m.register_forward_hook(widen) for m in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

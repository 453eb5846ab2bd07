"""Where the residual stream is read and written: found by solving for it, not from a table of architectures.

1. The layers are the first `ModuleList` of length `num_hidden_layers`.
2. Every block is run once on random tokens, and `resid_post = sum_i c_i * child_i + c_0 * resid_pre` is solved over its direct
   children, smallest set first. Children that are called more than once, or that equal an earlier one, are left out: dropout
   in eval mode copies the write, and rounding would choose between the two.
3. The first write that follows attention is `attn_out`, the other is `mlp_out`. `attn_out.L` and `mlp_out.L` mean what is
   *added* to the stream, coefficient included (Granite scales its writes).
4. A block whose solution is one write without the stream (BLOOM) adds the residual inside its modules; the writes are then
   differences of the stream before and after.
5. A remainder above tolerance in any block is an error, never a guess.

A half-precision block is solved on a float32 copy, because its residual addition itself rounds (about 2^-8).
"""

import copy
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from auditgap.errors import SiteError
from auditgap.models.sites import BlockSites, SiteMap, Write

__all__ = ["Solution", "find_layers", "find_sites", "first_tensor", "solve_writes"]

Nested = TypeVar("Nested")

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}
"""Largest remainder of the write equation, relative to max |resid_post|, by the dtype in which it is solved."""


class Solution(NamedTuple):
    """The smallest set of children whose weighted sum with the stream is the block's output."""

    modules: tuple[str, ...]
    coefficients: tuple[float, ...]
    stream: float
    remainder: float


def find_layers(hf: nn.Module, n_layers: int) -> str:
    """Path of the first `ModuleList` of that length.

    Raises:
        SiteError: there is none; the message lists the candidates.
    """
    lists = {name: len(module) for name, module in hf.named_modules() if isinstance(module, nn.ModuleList)}
    for name, length in lists.items():
        if length == n_layers:
            return name
    found = ", ".join(f"{name} ({length})" for name, length in lists.items()) or "none"
    raise SiteError(f"{type(hf).__name__}: expected a ModuleList of {n_layers} blocks (num_hidden_layers), found: {found}")


def solve_writes(
    children: Mapping[str, Float[Tensor, "..."]],
    calls: Mapping[str, int],
    resid_pre: Float[Tensor, "batch pos d"],
    resid_post: Float[Tensor, "batch pos d"],
    *,
    tolerance: float,
) -> Solution | None:
    """The fewest children that, with the stream, sum to `resid_post`; None if no set of up to three does.

    `children` are outputs in order of first call. Each coefficient is kept, rounded to six digits if that keeps the remainder.
    """
    post, pre = resid_post.reshape(-1).double(), resid_pre.reshape(-1).double()
    columns: dict[str, Tensor] = {}
    for name, x in children.items():
        flat = x.reshape(-1).double()
        if flat.numel() == post.numel() and calls[name] == 1 and not any(torch.equal(flat, o) for o in columns.values()):
            columns[name] = flat
    for size in (1, 2, 3):
        fits = [_fit(subset, columns, pre, post) for subset in itertools.combinations(columns, size)]
        if fits and (best := min(fits, key=lambda fit: fit.remainder)).remainder <= tolerance:
            return best
    return None


def _fit(subset: Sequence[str], columns: Mapping[str, Tensor], pre: Tensor, post: Tensor) -> Solution:
    a = torch.stack([columns[name] for name in subset] + [pre], dim=1)
    solved = torch.linalg.lstsq(a, post[:, None]).solution[:, 0]
    rounded = torch.round(solved, decimals=6)
    remainders = [((a @ c - post).abs().max() / post.abs().max()).item() for c in (rounded, solved)]
    c, remainder = (rounded, remainders[0]) if remainders[0] <= max(1e-6, remainders[1]) else (solved, remainders[1])
    *coefficients, stream = c.tolist()
    return Solution(tuple(subset), tuple(coefficients), stream, remainder)


class _Trace(NamedTuple):
    """One run of one block: the outputs and inputs of its children in order of call."""

    outputs: dict[str, Tensor]
    inputs: dict[str, Tensor]
    calls: Counter[str]
    matrices: list[tuple[str, Tensor]]
    """Every descendant that owns a weight matrix, with its input, in order of call."""
    resid_pre: Tensor
    resid_post: Tensor


def first_tensor(value: object) -> Tensor | None:
    """The tensor, or the first element of a tuple or list if that is a tensor."""
    item = value[0] if isinstance(value, tuple | list) and value else value
    return item if isinstance(item, Tensor) else None


def _trace_block(block: nn.Module, args: tuple, kwargs: dict) -> _Trace:
    """Run `block` once with recording hooks on its children and on its weight matrices."""
    outputs, inputs, calls, matrices, handles = {}, {}, Counter(), [], []

    def child_hook(name: str) -> Callable:
        def record(_module: nn.Module, given: tuple, named: dict, output: object) -> None:
            calls[name] += 1
            for into, value in ((inputs, given or named.get("hidden_states")), (outputs, output)):
                if (x := first_tensor(value)) is not None:
                    into.setdefault(name, x.detach().clone())

        return record

    def matrix_hook(name: str) -> Callable:
        def record(_module: nn.Module, given: tuple) -> None:
            if (x := first_tensor(given)) is not None:
                matrices.append((name, x.detach().clone()))

        return record

    try:
        for name, child in block.named_children():
            handles.append(child.register_forward_hook(child_hook(name), with_kwargs=True))
        for name, module in block.named_modules():
            if any(p.ndim == 2 for p in module.parameters(recurse=False)):
                handles.append(module.register_forward_pre_hook(matrix_hook(name)))
        output = first_tensor(block(*args, **kwargs))
    finally:
        for handle in handles:
            handle.remove()
    resid_pre = first_tensor(args) if args else kwargs.get("hidden_states")
    if resid_pre is None or output is None:
        raise SiteError(f"{type(block).__name__}: expected a block that maps a tensor to a tensor")
    return _Trace(outputs, inputs, calls, matrices, resid_pre, output)


def find_sites(hf: nn.Module, *, n_layers: int, n_heads: int, d_model: int, input_ids: Tensor) -> SiteMap:
    """The map of all sites, from one forward pass over `input_ids` and one replay of each block.

    Raises:
        SiteError: the layers are not found, or a block's writes do not sum to its output; names the architecture and block.
    """
    path = find_layers(hf, n_layers)
    layers = list(hf.get_submodule(path).children())
    calls: dict[int, tuple[tuple, dict]] = {}

    def keep(layer: int) -> Callable:
        def record(_module: nn.Module, args: tuple, kwargs: dict) -> None:
            calls[layer] = (args, kwargs)

        return record

    handles = [block.register_forward_pre_hook(keep(i), with_kwargs=True) for i, block in enumerate(layers)]
    try:
        with torch.no_grad():
            hf(input_ids=input_ids, attention_mask=torch.ones_like(input_ids), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()
    blocks, widths = [], set()
    for layer, block in enumerate(layers):
        where = f"{type(hf).__name__}: {path}.{layer} ({type(block).__name__})"
        if layer not in calls:
            raise SiteError(f"{where} is not called by the forward pass, so it is not a layer of the language model")
        with torch.no_grad():
            found, width = _solve_block(block, *calls[layer], n_heads=n_heads, where=where)
        blocks.append(found)
        widths.add(width)
    d_z = widths.pop() if len(widths) == 1 else None
    return SiteMap(path, tuple(blocks), d_model, d_z)


def _solve_block(block: nn.Module, args: tuple, kwargs: dict, *, n_heads: int, where: str) -> tuple[BlockSites, int | None]:
    """The sites of one block and the width of its `z`."""
    if next(block.parameters()).dtype in (torch.bfloat16, torch.float16):
        block, args, kwargs = copy.deepcopy(block).float(), _upcast(args), _upcast(kwargs)
    trace = _trace_block(block, args, kwargs)
    tolerance = TOLERANCE[trace.resid_post.dtype]
    solution = solve_writes(trace.outputs, trace.calls, trace.resid_pre, trace.resid_post, tolerance=tolerance)
    if solution is None:
        raise SiteError(
            f"{where}: no sum of its children ({', '.join(trace.outputs)}) and its input gives its output to {tolerance:g}; "
            "this architecture is not understood, so it cannot be measured from the inside"
        )
    attention = next((name for name, _ in trace.matrices), "").partition(".")[0]
    writes = _name_writes(solution, attention, where)
    pre = trace.resid_pre
    if writes[0].carries:
        mid, sequential = trace.outputs[writes[0].module], True
    else:
        mid = pre + writes[0].coefficient * trace.outputs[writes[0].module].reshape(pre.shape)
        sequential = any(x.numel() == mid.numel() and torch.allclose(x.reshape(mid.shape), mid) for x in trace.inputs.values())
    inside = [(name, x) for name, x in trace.matrices if name.startswith(f"{attention}.")]
    projection, z = inside[-1] if inside else (None, None)
    width = None if z is None else z.shape[-1]
    if z is None or width is None or width % n_heads or z.numel() != pre.shape[0] * pre.shape[1] * width:
        projection, width = None, None
    update = (trace.resid_post - pre).abs().max()
    relative = solution.remainder * (trace.resid_post.abs().max() / update).item() if update > 0 else 0.0
    return BlockSites(*writes, projection, sequential, solution.remainder, relative), width


def _name_writes(solution: Solution, attention: str, where: str) -> tuple[Write, Write]:
    """`attn_out` and `mlp_out`: the writes in order of call, attention first."""
    modules, stream = solution.modules, solution.stream
    if len(modules) == 2 and stream == 1.0:
        attn, mlp = (Write(name, c, False) for name, c in zip(modules, solution.coefficients, strict=True))
        return attn, mlp
    if len(modules) == 1 and stream == 0.0 and attention and attention != modules[0]:
        return Write(attention, 1.0, True), Write(modules[0], 1.0, True)
    found = " + ".join(f"{c:g} * {name}" for c, name in zip(solution.coefficients, modules, strict=True))
    raise SiteError(f"{where}: expected an attention write and an MLP write on the stream, found {found} + {stream:g} * input")


def _upcast(value: Nested) -> Nested:
    """`value` with every half-precision tensor in it as float32."""
    if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16):
        return value.float()  # type: ignore[return-value]
    if isinstance(value, tuple | list):
        return type(value)(_upcast(item) for item in value)  # type: ignore[call-arg]
    if isinstance(value, dict):
        return {key: _upcast(item) for key, item in value.items()}  # type: ignore[return-value]
    return value

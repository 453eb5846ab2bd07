"""Taking a direction out of the weights instead of the activations: in memory only, for as long as a context is open.

Projecting out at every residual write (`edit.ablating`) equals W <- W - r (r'W) on everything that writes to the stream:

1. The writers: tables of embeddings and positions that the pass reads before the first block; in each block the last matrix that
   runs inside each write, with its bias; all experts of a mixture.
2. Each parameter is swapped for a projected copy. The originals are never written to, so they come back bit for bit; a head tied
   to the embedding keeps the original, as it must.
3. On random tokens nothing of the direction may be left at the input of the first block or the output of any: the form is
   checked, not believed. Where a norm follows the projection (Gemma-2/3, OLMo-2) or the embedding (BLOOM) there is no such form,
   because gain and scale write the direction back.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from auditgap.errors import CannotMeasure
from auditgap.models.edit import Ablation, project_out
from auditgap.models.hooks import on_output, visiting
from auditgap.models.model import Model
from auditgap.models.validate import random_ids

__all__ = ["Writer", "orthogonalising", "residual_writers"]

TOLERANCE = {torch.float64: 1e-5, torch.float32: 1e-5}
"""How much of the direction may be left, relative to the stream (about 1e-7 where the form holds, also in float64, because the
direction is float32 as in `ablating`); 2e-2 in half precision, whose weights round."""


class Writer(NamedTuple):
    """A parameter whose output enters the residual stream."""

    module: str
    """Path of its module."""
    parameter: str
    axis: int
    """The axis that lies in the stream: -1, or -2 where outputs come first."""


def residual_writers(model: Model) -> list[Writer]:
    """Every parameter that writes to the stream, in the order in which a pass reaches them.

    Raises:
        CannotMeasure: a write holds no matrix (a norm follows it), or one that is not understood; names the module.
    """
    tables, last = _called(model)
    found = [Writer(name, "weight", -1) for name in tables]
    for layer, where in enumerate(model.sites.blocks):
        for write in (where.attn, where.mlp):
            path = f"{model.sites.layers_path}.{layer}.{write.module}"
            if path not in last:
                raise CannotMeasure(
                    f"{model.subject.architecture}: {path} writes to the stream and holds no matrix: a norm follows the "
                    "projection, and its gain and scale would write the direction back, so no edit of weights equals the ablation"
                )
            found += _of_matrix(model, last[path])
    return found


@contextmanager
def orthogonalising(model: Model, unit: Float[Tensor, " d"]) -> Iterator[None]:
    """The model with `unit` taken out of every parameter that writes to the stream; every parameter is put back afterwards.

    Costs a copy of the writing parameters in memory. Never save the model from inside: edits must not leave the measurement.

    Raises:
        CannotMeasure: this architecture has no exact weight form; nothing was changed.
        UsageError: the vector does not have norm 1.
    """
    direction = unit.to(model.device, torch.float32)
    project = project_out(direction)
    with ExitStack() as stack:
        for module, name, axis in residual_writers(model):
            owner = model.hf.get_submodule(module)
            original = owner.get_parameter(name)
            weight = original.detach()
            edited = project(weight) if axis == -1 else project(weight.mT).mT.contiguous()
            stack.callback(setattr, owner, name, original)
            setattr(owner, name, nn.Parameter(edited, requires_grad=original.requires_grad))
        left, tolerance = _left(model, direction), TOLERANCE.get(model.hf.dtype, 2e-2)
        if not left <= tolerance:
            raise CannotMeasure(
                f"{model.subject.architecture}: with the weights edited {left:.2g} of the direction is left in the stream (limit "
                f"{tolerance:g}): something other than the matrices found writes to it, so there is no exact weight form here"
            )
        yield


def _called(model: Model) -> tuple[list[str], dict[str, str]]:
    """Tables that a pass reads outside the blocks, and for each write the last matrix called inside it."""
    tables: list[str] = []
    last: dict[str, str] = {}
    inside = f"{model.sites.layers_path}."
    with ExitStack() as stack:
        for name, module in model.hf.named_modules():
            if isinstance(module, nn.Embedding) and not name.startswith(inside):
                handle = module.register_forward_hook(lambda *_, name=name: tables.append(name))
                stack.callback(handle.remove)
        for layer, (block, where) in enumerate(zip(model.layers, model.sites.blocks, strict=True)):
            for write in (where.attn, where.mlp):
                path = f"{inside}{layer}.{write.module}"
                for name, module in block.get_submodule(write.module).named_modules():
                    if any(p.ndim >= 2 for p in module.parameters(recurse=False)):
                        full = f"{path}.{name}" if name else path
                        handle = module.register_forward_hook(lambda *_, path=path, full=full: last.update({path: full}))
                        stack.callback(handle.remove)
        _pass(model)
    return tables, last


def _of_matrix(model: Model, path: str) -> list[Writer]:
    """The parameters of one output projection."""
    module = model.hf.get_submodule(path)
    own = dict(module.named_parameters(recurse=False))
    if isinstance(module, nn.Linear | Conv1D):
        names = {"weight": -2 if isinstance(module, nn.Linear) else -1, "bias": -1}
    elif (
        "down_proj" in own and own["down_proj"].ndim == 3
    ):  # the experts of a mixture, in the layout that transformers gives them
        names = {"down_proj": -1 if getattr(module, "is_transposed", False) else -2, "down_proj_bias": -1}
    else:
        raise CannotMeasure(
            f"{model.subject.architecture}: {path} ({type(module).__name__}) writes to the stream, expected a linear map or "
            "experts with a down_proj; how to edit it is not known"
        )
    return [Writer(path, name, axis) for name, axis in names.items() if name in own]


def _left(model: Model, unit: Float[Tensor, " d"]) -> float:
    """How much of the direction random tokens have at the first block's input and at any block's output."""
    ablation = Ablation()
    with ExitStack() as stack, visiting(model, [("resid_pre.0", lambda x: ablation.see(x, unit))]):
        for block in model.layers:
            stack.callback(on_output(block, lambda x: ablation.see(x, unit)).remove)
        _pass(model)
    return ablation.max_residual


def _pass(model: Model) -> None:
    """Two rows of random tokens."""
    ids = random_ids(model, n_rows=2, n_pos=7)
    mask = torch.ones_like(ids)
    with torch.no_grad():
        model.hf(input_ids=ids, attention_mask=mask, position_ids=mask.cumsum(-1) - 1, use_cache=False)

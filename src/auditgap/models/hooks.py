"""Plain forward hooks at named sites: what reading and editing have in common.

A visit gets the activation of a site and returns None (read) or its replacement (edit). Hooks fire in the order in which they
were attached, so a capture inside `editing` sees the edited stream.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from auditgap.models.model import Model
from auditgap.models.sites import BlockSites, Site, Write
from auditgap.models.solver import first_tensor

__all__ = ["Visit", "visiting"]

Visit = Callable[[Tensor], Tensor | None]
"""Called with the activation at a site (batch pos d); returns None, or what shall take its place."""


@contextmanager
def visiting(model: Model, visits: Iterable[tuple[str, Visit]]) -> Iterator[None]:
    """Call each visit whenever a forward pass reaches its site; nothing stays behind, whatever happens.

    Raises:
        UsageError: an unknown site.
    """
    pairs = list(visits)
    sites, layers = model.sites.check(name for name, _ in pairs), model.layers
    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        for site, (_, visit) in zip(sites, pairs, strict=True):
            handles += _attach(layers[site.layer], model.sites.blocks[site.layer], site, visit)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _attach(block: nn.Module, where: BlockSites, site: Site, visit: Visit) -> list[torch.utils.hooks.RemovableHandle]:
    if site.kind == "resid_pre":
        return [on_input(block, visit)]
    if site.kind == "resid_post":
        return [on_output(block, visit)]
    if site.kind == "z":
        return [on_input(block.get_submodule(where.projection or ""), visit)]
    before: list[Tensor] = []

    def remember(x: Tensor) -> None:
        before[:] = [x]

    write = where.mlp if site.kind == "mlp_out" else where.attn
    if site.kind == "mlp_out" and write.carries:
        start = on_output(block.get_submodule(where.attn.module), remember)
    else:
        start = on_input(block, remember)
    inner = _on_stream(visit, before, write) if site.kind == "resid_mid" else _on_write(visit, before, write)
    return [start, on_output(block.get_submodule(write.module), inner)]


def _on_write(visit: Visit, before: list[Tensor], write: Write) -> Visit:
    """Show the visit what is added to the stream, and undo coefficient and carried residual on its answer."""

    def act(raw: Tensor) -> Tensor | None:
        stream, c = before.pop(), write.coefficient  # taken, not kept: hooks must not hoard the stream of every layer
        x = raw.reshape(stream.shape)
        if write.carries:
            edited = visit(x - stream)
            return None if edited is None else (stream + edited).reshape(raw.shape)
        edited = visit(x if c == 1.0 else c * x)
        if edited is None:
            return None
        return (edited if c == 1.0 else edited / c).reshape(raw.shape)

    return act


def _on_stream(visit: Visit, before: list[Tensor], write: Write) -> Visit:
    """Show the visit the stream after the write, and turn its answer into the write that leads there."""

    def act(raw: Tensor) -> Tensor | None:
        stream, c = before.pop(), write.coefficient  # taken, not kept: hooks must not hoard the stream of every layer
        x = raw.reshape(stream.shape)
        if write.carries:
            return visit(x)
        edited = visit(stream + (x if c == 1.0 else c * x))
        return None if edited is None else ((edited - stream) / c).reshape(raw.shape)

    return act


def on_input(module: nn.Module, visit: Visit) -> torch.utils.hooks.RemovableHandle:
    """Visit the module's first argument, or its `hidden_states` if called by keyword."""
    return module.register_forward_pre_hook(partial(_visit_input, visit), with_kwargs=True)


def on_output(module: nn.Module, visit: Visit) -> torch.utils.hooks.RemovableHandle:
    """Visit the module's output, or the first element of the tuple it returns."""
    return module.register_forward_hook(partial(_visit_output, visit))


def _visit_input(visit: Visit, _module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
    edited = visit(args[0] if args else kwargs["hidden_states"])
    if edited is None:
        return None
    return ((edited, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": edited})


def _visit_output(visit: Visit, _module: nn.Module, _args: tuple, output: Tensor | tuple) -> Tensor | tuple | None:
    x = first_tensor(output)
    edited = None if x is None else visit(x)
    if edited is None:
        return None
    return (edited, *output[1:]) if isinstance(output, tuple) else edited

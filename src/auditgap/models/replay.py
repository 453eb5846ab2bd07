"""Calling the transformer blocks one by one, with the arguments that the model itself gives them.

1. A pass in which every block is skipped costs an embedding and a mask. It shows each layer's own arguments (masks and rotary
   tables differ between layers in Gemma and Mistral).
2. Three such passes (one row; two equal rows; one row with every position twice) show which arguments grow with the batch, and
   along which axis with the tokens. From that follow the arguments for any number of rows, and for any list of tokens.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from auditgap.errors import SiteError
from auditgap.models.hooks import on_output
from auditgap.models.model import Model

__all__ = ["Replay", "call_block", "forward", "head", "record"]


class _Call(NamedTuple):
    """What a layer was called with besides the stream."""

    args: tuple
    kwargs: dict


class Replay(NamedTuple):
    """The arguments of one layer in the three passes."""

    one: _Call
    two: _Call
    twice: _Call

    def for_rows(self, n_rows: int) -> _Call:
        """For `n_rows` rows: unchanged if it did not grow, expanded if one per row, tiled if a block per row.

        Raises:
            SiteError: an argument cannot be replayed.
        """
        return _join(self.one, self.two, lambda one, two: _repeat(one, two, n_rows))

    def for_tokens(self, positions: Int[Tensor, " token"]) -> _Call:
        """For one row of tokens at these positions. A mask, which relates tokens to tokens, is left out.

        Raises:
            SiteError: an argument cannot be replayed.
        """
        return _join(self.one, self.twice, lambda one, twice: _select(one, twice, positions))


def record(model: Model, n_pos: int) -> list[Replay]:
    """Each layer's own arguments for rows of `n_pos` tokens without padding."""
    positions = torch.arange(n_pos, device=model.device)
    passes = (positions[None], positions.expand(2, -1), positions.repeat(2)[None])
    return [Replay(*calls) for calls in zip(*(_calls(model, position_ids) for position_ids in passes), strict=True)]


def call_block(block: nn.Module, stream: Float[Tensor, "row pos d"], call: _Call) -> Float[Tensor, "row pos d"]:
    """The block's output for this input."""
    output = block(stream, *call.args, **call.kwargs)
    return output[0] if isinstance(output, tuple) else output


def forward(model: Model, input_ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row vocab"]:
    """Logits at the last position of rows without padding (float32)."""
    return _run(model, input_ids, torch.arange(input_ids.shape[1], device=input_ids.device).expand_as(input_ids))


def head(model: Model, last: Float[Tensor, "row d"]) -> Float[Tensor, "row vocab"]:
    """Logits of these outputs of the last block (float32), by the model's own forward on one token, blocks skipped, with the
    outputs put in: soft-caps, scalings and word projections stay the model's own.
    """
    with _skipping(model):
        handle = on_output(model.layers[-1], lambda _: last[:, None])
        try:
            zero = torch.zeros(1, 1, dtype=torch.long, device=last.device)
            return _run(model, zero, zero)
        finally:
            handle.remove()


def _run(model: Model, input_ids: Tensor, position_ids: Tensor) -> Tensor:
    mask = torch.ones_like(input_ids)
    output = model.hf(input_ids=input_ids, attention_mask=mask, position_ids=position_ids, use_cache=False, logits_to_keep=1)
    return output.logits[:, -1].float()


def _calls(model: Model, position_ids: Tensor) -> list[_Call]:
    kept: list[_Call] = []

    def keep(_module: nn.Module, args: tuple, kwargs: dict) -> None:
        kept.append(_Call(args[1:], {key: value for key, value in kwargs.items() if key != "hidden_states"}))

    with _skipping(model):
        handles = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in model.layers]
        try:
            _run(model, torch.zeros_like(position_ids), position_ids)
        finally:
            for handle in handles:
                handle.remove()
    return kept


_n_outputs: WeakKeyDictionary[nn.Module, list[int]] = WeakKeyDictionary()
"""Per model, the length of the tuple that each block returns; 0 for a tensor. A property of the code, so it is looked at once."""


def _outputs(model: Model) -> list[int]:
    if model.hf not in _n_outputs:
        found: list[int] = []

        def look(_module: nn.Module, _args: tuple, output: object) -> None:
            found.append(len(output) if isinstance(output, tuple) else 0)

        handles = [layer.register_forward_hook(look) for layer in model.layers]
        try:
            forward(model, torch.zeros(1, 1, dtype=torch.long, device=model.device))
        finally:
            for handle in handles:
                handle.remove()
        _n_outputs[model.hf] = found
    return _n_outputs[model.hf]


@contextmanager
def _skipping(model: Model) -> Iterator[None]:
    """Every block returns its input."""

    def skip(n_outputs: int) -> Callable[..., object]:
        def same(*args: object, **kwargs: object) -> object:
            stream = args[0] if args else kwargs["hidden_states"]
            return (stream, *(None,) * (n_outputs - 1)) if n_outputs else stream

        return same

    layers = list(zip(model.layers, _outputs(model), strict=True))
    try:
        for layer, n_outputs in layers:
            layer.forward = skip(n_outputs)  # type: ignore[method-assign]  # on the instance: the class is untouched
        yield
    finally:
        for layer, _ in layers:
            layer.__dict__.pop("forward", None)


def _join(one: _Call, other: _Call, join: Callable[[Tensor, Tensor], Tensor | None]) -> _Call:
    args = tuple(_join_nested(a, b, join) for a, b in zip(one.args, other.args, strict=True))
    return _Call(args, {key: _join_nested(one.kwargs[key], other.kwargs[key], join) for key in one.kwargs})


def _join_nested(one: object, other: object, join: Callable[[Tensor, Tensor], Tensor | None]) -> object:
    """The same nest of tuples, lists and dicts, with each pair of tensors joined."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return join(one, other)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return type(one)(_join_nested(a, b, join) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return {key: _join_nested(one[key], other[key], join) for key in one}
    if one is None or isinstance(one, bool | int | float | str):
        return one
    raise SiteError(f"a layer takes an argument of type {type(one).__name__} that cannot be replayed; patching is not possible")


def _repeat(one: Tensor, two: Tensor, n_rows: int) -> Tensor:
    if one.shape == two.shape:
        return one
    if one.shape[0] == 1:
        return one.expand(n_rows, *one.shape[1:])
    return one.repeat(n_rows, *(1 for _ in one.shape[1:]))  # BLOOM's alibi: (batch x heads, 1, pos), batch-major


def _select(one: Tensor, twice: Tensor, positions: Tensor) -> Tensor | None:
    axes = [axis for axis, (a, b) in enumerate(zip(one.shape, twice.shape, strict=True)) if a != b]
    if len(axes) > 1:
        return None
    return one.index_select(axes[0], positions) if axes else one

"""What attention compares: queries and keys as the model's own kernel receives them, for any architecture that calls torch's.

1. A `TorchFunctionMode` sees every call of `scaled_dot_product_attention` while it is active: queries, keys, values, mask, scale.
   Nothing is replaced in the model, and nothing is assumed about how it makes queries and keys (norms, rotation, caps).
2. Softmax(q k^T + mask) v is computed from what was seen and must equal the input of the output projection (`z`), in every layer.
   Where there is no such call, or it does not equal, the architecture is refused: no guess.
3. The QK fix: attention saturates, so a gradient through the softmax says nothing of what another query or key would do. Instead
   the softmax is computed with the other query or key, and only what follows is linear: (attn' - attn) v . dm/dz.

Source: J. Kramar, T. Lieberum, R. Shah, N. Nanda, AtP*, arXiv:2403.00745, section 3.1.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.overrides import TorchFunctionMode

from auditgap.errors import SiteError
from auditgap.instruments.patching.runs import unpadded
from auditgap.models import Model
from auditgap.models.generate import final_logits
from auditgap.models.hooks import visiting

__all__ = ["Attention", "Visit", "attending", "key_effects", "query_effects", "read_attention"]

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""Largest difference of the recomputed `z`, relative to its largest entry; 5e-2 in half precision."""

Visit = Callable[[int, Tensor, Tensor], tuple[Tensor, Tensor] | None]
"""Called with the layer, its queries and its keys as the kernel gets them; returns None, or both as they shall be."""


class Attention(NamedTuple):
    """One layer's attention, as it ran (float64, CPU)."""

    query: Float[Tensor, "row head pos d"]
    key: Float[Tensor, "row kv pos d"]
    """Distinct keys only: with grouped queries there are fewer than heads."""
    value: Float[Tensor, "row head pos _"]
    bias: Float[Tensor, "row head pos pos"]
    """0 where a query may look, minus infinity where not, or whatever the model adds."""
    scale: float

    def logits(self, query: Float[Tensor, "row head pos d"]) -> Float[Tensor, "row head pos pos"]:
        """What the softmax gets, for these queries."""
        return self.scale * query @ _expand(self.key, query.shape[1]).mT + self.bias

    @property
    def z(self) -> Float[Tensor, "row head pos _"]:
        """What each head passes on."""
        return self.logits(self.query).softmax(-1) @ self.value


class _Call(NamedTuple):
    """The arguments of `scaled_dot_product_attention`."""

    query: Tensor
    key: Tensor
    value: Tensor
    attn_mask: Tensor | None = None
    dropout_p: float = 0.0
    is_causal: bool = False
    scale: float | None = None
    enable_gqa: bool = False


class _Watch(TorchFunctionMode):
    def __init__(self, see: Callable[[_Call], _Call]) -> None:
        super().__init__()
        self._see = see

    def __torch_function__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:
        if func is F.scaled_dot_product_attention:
            return func(**self._see(_Call(*args, **(kwargs or {})))._asdict())
        return func(*args, **(kwargs or {}))


@contextmanager
def attending(model: Model, visit: Visit) -> Iterator[None]:
    """Show queries and keys of each layer to the visit, in every forward pass inside the context."""
    n_seen = 0

    def see(call: _Call) -> _Call:
        nonlocal n_seen
        layer, n_seen = n_seen % model.n_layers, n_seen + 1
        edited = visit(layer, call.query, call.key)
        return call if edited is None else call._replace(query=edited[0], key=edited[1])

    with _Watch(see):
        yield


def read_attention(model: Model, input_ids: Int[Tensor, "row pos"]) -> list[Attention]:
    """Each layer's attention in a run of rows without padding.

    Raises:
        SiteError: attention is not one call of torch's kernel per layer, or what it computes is not `z`; says which layer.
    """
    calls: list[_Call] = []
    z: dict[int, Tensor] = {}

    def keep(call: _Call) -> _Call:
        calls.append(call)
        return call

    def keeper(layer: int) -> Callable[[Tensor], None]:
        def read(x: Tensor) -> None:
            z[layer] = x.double().cpu()

        return read

    who = model.subject.architecture
    visits = [(f"z.{layer}", keeper(layer)) for layer in range(model.n_layers)]
    with visiting(model, visits), _Watch(keep):
        final_logits(model, unpadded(model, input_ids), keep=1)
    if len(calls) != model.n_layers:
        raise SiteError(
            f"{who} calls torch's attention kernel {len(calls)} times for {model.n_layers} layers (its own is "
            f"'{model.attention_kernel}'), so queries and keys cannot be recomputed"
        )
    found = [_attention(model, call) for call in calls]
    tolerance = TOLERANCE.get(model.hf.dtype, 5e-2)
    for layer, attention in enumerate(found):
        recomputed = attention.z.transpose(1, 2).flatten(2)
        if recomputed.shape != z[layer].shape or not (recomputed - z[layer]).abs().max() <= tolerance * z[layer].abs().max():
            raise SiteError(f"{who}: attention of layer {layer}, recomputed from its queries and keys, is not what it passes on")
    return found


def _attention(model: Model, call: _Call) -> Attention:
    query, key, value = (x.double().cpu() for x in (call.query, call.key, call.value))
    n_rows, n_heads, n_pos, d = query.shape
    bias = torch.zeros(n_pos, n_pos, dtype=torch.float64)
    if call.is_causal:
        bias = bias.masked_fill(torch.ones(n_pos, n_pos, dtype=torch.bool).triu(1), -torch.inf)
    if call.attn_mask is not None:
        mask = call.attn_mask.cpu()
        bias = bias + (torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else mask).double()
    return Attention(
        query,
        _distinct(key, getattr(model.hf.config.get_text_config(), "num_key_value_heads", None) or n_heads),
        _expand(value, n_heads),
        bias.expand(n_rows, n_heads, n_pos, n_pos),
        d**-0.5 if call.scale is None else call.scale,
    )


def _distinct(key: Float[Tensor, "row head pos d"], n_kv: int) -> Float[Tensor, "row kv pos d"]:
    """Keys without the copies that some models make for grouped queries."""
    n_heads = key.shape[1]
    if n_heads > n_kv and n_heads % n_kv == 0:
        grouped = key.unflatten(1, (n_kv, n_heads // n_kv))
        if torch.equal(grouped, grouped[:, :, :1].expand_as(grouped)):
            return grouped[:, :, 0]
    return key


def _expand(x: Float[Tensor, "row kv pos d"], n_heads: int) -> Float[Tensor, "row head pos d"]:
    return x.repeat_interleave(n_heads // x.shape[1], dim=1)


def query_effects(
    at: Attention, query: Float[Tensor, "row head pos d"], gradient: Float[Tensor, "row head pos v"]
) -> Float[Tensor, "row pos head"]:
    """What putting in the other query would do at each position and head, if what follows `z` were linear."""
    return (((at.logits(query).softmax(-1) @ at.value) - at.z) * gradient).sum(-1).mT


def key_effects(
    at: Attention, key: Float[Tensor, "row kv pos d"], gradient: Float[Tensor, "row head pos v"]
) -> Float[Tensor, "row pos kv"]:
    """What putting in the other key would do at each position and key head, if what follows `z` were linear.

    Another key at one position moves its weight from a to a', and with it z by (a' - a) (v - z'), where z' is what the head would
    pass on without that position. Where a position has nearly all the weight, z' is computed apart: 1 - a has no digits left.
    """
    n_rows, n_heads, n_pos, _ = at.query.shape
    logits = at.logits(at.query)
    change = at.scale * at.query @ _expand(key - at.key, n_heads).mT
    worth = gradient @ at.value.mT  # v_j . gradient_i
    total, weights = logits.logsumexp(-1, keepdim=True), logits.softmax(-1)
    largest = logits.argmax(-1, keepdim=True)
    rest = logits.scatter(-1, largest, -torch.inf)
    is_largest = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, largest, True)
    others = torch.where(is_largest, rest.logsumexp(-1, keepdim=True), total + (-weights).log1p())
    worth_without = torch.where(
        is_largest,
        (rest.softmax(-1).nan_to_num() * worth).sum(-1, keepdim=True),  # NaN: there is no other position
        ((weights * worth).sum(-1, keepdim=True) - weights * worth) / (1 - weights),
    )
    moved = (logits + change - others).sigmoid() - (logits - others).sigmoid()
    by_head = (moved * (worth - worth_without)).sum(-2)
    return by_head.view(n_rows, at.key.shape[1], -1, n_pos).sum(2).mT

"""What each write to the residual stream adds to a logit difference, exactly, with everything that bends held still.

1. Run the model untouched. Keep the scale of every norm, every query and key, and the ratio of the final logits of answer and
   foil to what the unembedding gave (1, unless the model soft-caps or scales its logits).
2. Run it again with those put back: attention patterns, norm scales and soft-cap are now constants, and the target (logit of the
   answer less that of the foil, at the last position) is affine in the embedding, the heads and the MLP outputs.
3. A gradient is then an exact effect: contribution = gradient * write. Together with what is left when every write is silenced
   (the biases) the contributions sum to the target of the untouched run. That sum can fail: it is the check on steps 1 and 2.

Source: the frozen-attention linear picture is that of circuit-tracer (Ameisen et al. 2025, Circuit Tracing); the freezing by
channels that were found to be values is ours.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from auditgap.errors import SiteError
from auditgap.models.anatomy import Anatomy, Norm, hooks
from auditgap.models.edit import Edit, editing
from auditgap.models.hooks import on_output, visiting
from auditgap.models.model import Model
from auditgap.models.tokens import Tokens

__all__ = [
    "Component",
    "Effects",
    "Frozen",
    "by_component",
    "components",
    "direct_effects",
    "freeze",
    "path_effects",
    "write_sites",
]


class Component(NamedTuple):
    """What writes to the residual stream."""

    kind: Literal["embedding", "head", "mlp"]
    layer: int
    head: int

    def __str__(self) -> str:
        return {"embedding": "embedding", "head": f"head {self.layer}.{self.head}", "mlp": f"mlp {self.layer}"}[self.kind]


def components(model: Model) -> list[Component]:
    """The embedding, then every layer's heads and its MLP, in the order in which they write."""
    found = [Component("embedding", 0, 0)]
    for layer in range(model.n_layers):
        found += [Component("head", layer, head) for head in range(model.n_heads)] + [Component("mlp", layer, 0)]
    return found


def write_sites(model: Model) -> list[str]:
    """The sites at which the components are read and set: all heads of a layer are at its `z`."""
    return ["resid_pre.0", *(f"{kind}.{layer}" for layer in range(model.n_layers) for kind in ("z", "mlp_out"))]


@dataclass(frozen=True, eq=False)
class Frozen:
    """One batch of a model, with what bends held as it was in the untouched run."""

    model: Model
    anatomy: Anatomy
    tokens: Tokens
    answer: Int[Tensor, " batch"]
    foil: Int[Tensor, " batch"]
    target: Float[Tensor, " batch"]
    """Logit of the answer less that of the foil in the untouched run."""
    writes: dict[str, Float[Tensor, "batch pos _"]]
    """What the components wrote, by site (`write_sites`)."""
    scales: dict[str, Float[Tensor, "..."]]
    held: dict[str, Float[Tensor, "batch pos _"]]
    ratio: Float[Tensor, "batch 2"]

    def run(self, edits: Mapping[str, Edit] | None = None) -> Float[Tensor, " batch"]:
        """The target of a run in which only what is linear may change."""
        with self.still(), editing(self.model, edits or {}):
            return self.forward()

    @contextmanager
    def still(self) -> Iterator[None]:
        """Hold what bends; whoever reads or edits a module in here sees its held output."""
        with hooks() as handles:
            for name, norm in self.anatomy.norms.items():
                handles.append(self.model.hf.get_submodule(name).register_forward_hook(self._hold_norm(name, norm)))
            for name, is_value in self.anatomy.values.items():
                handles.append(self.model.hf.get_submodule(name).register_forward_hook(self._hold_pattern(name, is_value)))
            yield

    def forward(self) -> Float[Tensor, " batch"]:
        """The target of one pass as the hooks now stand."""
        seen: list[Tensor] = []
        with hooks() as handles:
            handles.append(on_output(_unembedding(self.model), seen.append))
            self.model.hf(**self.tokens._asdict(), use_cache=False, logits_to_keep=1)
        return _signed(self.ratio * _pick(seen[-1][:, -1], self.answer, self.foil))

    def _hold_norm(self, name: str, norm: Norm) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
        return lambda _module, args, _output: norm.frozen(args[0], self.scales[name])

    def _hold_pattern(self, name: str, is_value: Tensor) -> Callable[[nn.Module, tuple, Tensor], Tensor]:
        return lambda _module, _args, output: torch.where(is_value, output, self.held[name])


def freeze(model: Model, anatomy: Anatomy, tokens: Tokens, answer: Int[Tensor, " batch"], foil: Int[Tensor, " batch"]) -> Frozen:
    """Run a batch untouched and keep what later runs hold still.

    Raises:
        SiteError: the model has no unembedding module of its own.
    """
    answer, foil = answer.to(model.device), foil.to(model.device)
    writes: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    held: dict[str, Tensor] = {}
    raw: list[Tensor] = []
    with torch.no_grad(), hooks() as handles:
        for name, norm in anatomy.norms.items():
            keep = lambda _module, args, y, name=name, norm=norm: scales.update({name: norm.scale(args[0], y)})  # noqa: E731
            handles.append(model.hf.get_submodule(name).register_forward_hook(keep))
        for name in anatomy.values:
            hold = lambda _module, _args, y, name=name: held.update({name: y.clone()})  # noqa: E731
            handles.append(model.hf.get_submodule(name).register_forward_hook(hold))
        handles.append(on_output(_unembedding(model), raw.append))
        with visiting(model, [(site, lambda x, site=site: writes.update({site: x.clone()})) for site in write_sites(model)]):
            logits = model.hf(**tokens._asdict(), use_cache=False, logits_to_keep=1).logits[:, -1]
    shown, linear = _pick(logits, answer, foil), _pick(raw[-1][:, -1], answer, foil)
    ratio = torch.where(linear == 0, torch.ones_like(linear), shown / linear)
    return Frozen(model, anatomy, tokens, answer, foil, _signed(shown), writes, scales, held, ratio)


class Effects(NamedTuple):
    """The target as a sum: one number per component and position, and what remains when all of them are silenced (the biases)."""

    values: Float[Tensor, "batch component pos"]
    constant: Float[Tensor, " batch"]
    target: Float[Tensor, " batch"]

    @property
    def error(self) -> Float[Tensor, " batch"]:
        """Target less the sum, relative to the sum of the parts' sizes: about 1e-7 in float32 where the sum is complete."""
        parts = torch.cat([self.values.flatten(1), self.constant[:, None]], dim=1).double()
        return (self.target.double() - parts.sum(1)).abs() / parts.abs().sum(1).clamp(min=torch.finfo(torch.float32).tiny)


def direct_effects(frozen: Frozen) -> Effects:
    """What every embedding, head and MLP adds to the target by itself, through the final norm and unembedding alone.

    Only the last position can: elsewhere it is 0. One row per component (`components`).
    """
    return _effects(frozen, write_sites(frozen.model))


def path_effects(frozen: Frozen) -> Effects:
    """What every embedding and MLP output adds to the target along all paths of residual stream and frozen attention.

    Heads pass on what they read here, so their rows are 0: their contribution is in the rows of what they carried.
    """
    return _effects(frozen, [site for site in write_sites(frozen.model) if not site.startswith("z.")])


def _effects(frozen: Frozen, sites: list[str]) -> Effects:
    leaves = {site: frozen.writes[site].detach().requires_grad_() for site in sites}
    with torch.enable_grad():
        target = frozen.run({site: lambda _, x=x: x.clone() for site, x in leaves.items()})
        grads = torch.autograd.grad(target.sum(), list(leaves.values()))
    with torch.no_grad():
        silent = frozen.run(dict.fromkeys(sites, torch.zeros_like))
        products = {site: grad * x.detach() for (site, x), grad in zip(leaves.items(), grads, strict=True)}
        return Effects(by_component(frozen.model, products), silent, frozen.target)


def by_component(model: Model, products: Mapping[str, Float[Tensor, "batch pos _"]]) -> Float[Tensor, "batch component pos"]:
    """Sums over the width of each component; a site that is missing counts as 0."""
    zero = torch.zeros_like(next(iter(products.values()))[..., 0])
    rows = [products["resid_pre.0"].sum(-1) if "resid_pre.0" in products else zero]
    for layer in range(model.n_layers):
        z, mlp = products.get(f"z.{layer}"), products.get(f"mlp_out.{layer}")
        rows += [zero] * model.n_heads if z is None else list(z.unflatten(-1, (model.n_heads, -1)).sum(-1).unbind(-1))
        rows.append(zero if mlp is None else mlp.sum(-1))
    return torch.stack(rows, dim=1)


def _unembedding(model: Model) -> nn.Module:
    module = model.hf.get_output_embeddings()
    if not isinstance(module, nn.Module):
        raise SiteError(
            f"{model.subject.architecture}: the model names no unembedding module, so logits cannot be traced to the stream"
        )
    return module


def _pick(
    logits: Float[Tensor, "batch vocab"], answer: Int[Tensor, " batch"], foil: Int[Tensor, " batch"]
) -> Float[Tensor, "batch 2"]:
    return logits.gather(1, torch.stack([answer, foil], dim=1))


def _signed(pair: Float[Tensor, "batch 2"]) -> Float[Tensor, " batch"]:
    return pair[:, 0] - pair[:, 1]

"""What each write to the residual stream adds to a logit difference, exactly, with everything that bends held still.

1. Run the model untouched. Keep the scale of every norm, every query and key, and the ratio of the final logits of answer and foil to what
   the unembedding gave (1, unless the model soft-caps or scales its logits).
2. Run it again with those put back: attention patterns, norm scales and soft-cap are now constants, and the target (logit of the
   answer less that of the foil, at the last position) is affine in the embedding, the heads and the MLP outputs.
3. A gradient is then an exact effect: contribution = gradient * write. Together with what is left when every write is silenced (the
   biases) the contributions sum to the target of the untouched run. That sum can fail: it is the check on steps 1 and 2.

MLPs stay as they are: as a source a write is taken as given, as a receiver it is linearised at its input, and what that leaves out is
returned as an error, not hidden.

Source: the frozen-attention linear picture is that of circuit-tracer (Ameisen et al. 2025, Circuit Tracing); the freezing by
channels that were found to be values, and the errors per part, are ours.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from auditgap.errors import SiteError
from auditgap.models.anatomy import Anatomy, hooks
from auditgap.models.edit import Edit, editing
from auditgap.models.hooks import on_output, visiting
from auditgap.models.model import Model
from auditgap.models.tokens import Tokens

__all__ = [
    "Component",
    "Effects",
    "Flow",
    "Frozen",
    "components",
    "direct_effects",
    "flow",
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
        seen: list[Tensor] = []
        with ExitStack() as stack:
            handles = stack.enter_context(hooks())
            for name, norm in self.anatomy.norms.items():

                def still(_module: nn.Module, args: tuple, _output: Tensor, name: str = name, norm=norm) -> Tensor:
                    return norm.frozen(args[0], self.scales[name])

                handles.append(self.model.hf.get_submodule(name).register_forward_hook(still))
            for name, is_value in self.anatomy.values.items():

                def hold(
                    _module: nn.Module, _args: tuple, output: Tensor, name: str = name, is_value: Tensor = is_value
                ) -> Tensor:
                    return torch.where(is_value, output, self.held[name])

                handles.append(self.model.hf.get_submodule(name).register_forward_hook(hold))
            handles.append(on_output(_unembedding(self.model), seen.append))
            stack.enter_context(editing(self.model, edits or {}))
            self.model.hf(**self.tokens._asdict(), use_cache=False, logits_to_keep=1)
        return _signed(self.ratio * _pick(seen[-1][:, -1], self.answer, self.foil))


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

            def scale(_module: nn.Module, args: tuple, output: Tensor, name: str = name, norm=norm) -> None:
                scales[name] = norm.scale(args[0], output)

            handles.append(model.hf.get_submodule(name).register_forward_hook(scale))
        for name in anatomy.values:

            def keep(_module: nn.Module, _args: tuple, output: Tensor, name: str = name) -> None:
                held[name] = output.clone()

            handles.append(model.hf.get_submodule(name).register_forward_hook(keep))
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
        grads = torch.autograd.grad(target.sum(), list(leaves.values()), allow_unused=True)
    with torch.no_grad():
        silent = frozen.run(dict.fromkeys(sites, torch.zeros_like))
        products = {
            site: torch.zeros_like(x) if grad is None else grad * x.detach()
            for (site, x), grad in zip(leaves.items(), grads, strict=True)
        }
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


@dataclass(frozen=True, eq=False)
class Flow:
    """Gradients of the target along every path, MLPs linearised at their input, with the graph kept so that edges can be asked for."""

    frozen: Frozen
    stream: list[Float[Tensor, "batch pos d_model"]]
    """At `resid_pre` of every layer, then at the last `resid_post`: also the gradient at the MLP write of the layer before."""
    attn: list[Float[Tensor, "batch pos d_model"]]
    """At what attention adds to the stream."""
    z: list[Float[Tensor, "batch pos _"]]
    taps: dict[str, Tensor]
    """The activations themselves, on the graph: `pre`, `z`, `attn` and `mlp` (outputs of the writing modules) per layer."""

    def effects(self, change: Mapping[str, Float[Tensor, "batch pos _"]]) -> Float[Tensor, "batch component pos"]:
        """First-order effect on the target of changing each component's write by `change` (by site), one at a time."""
        gradients = {"resid_pre.0": self.stream[0]}
        for layer in range(self.frozen.model.n_layers):
            gradients |= {f"z.{layer}": self.z[layer], f"mlp_out.{layer}": self.stream[layer + 1]}
        return by_component(self.frozen.model, {site: gradients[site] * x for site, x in change.items()})

    def edges(
        self, receiver: Component | None, at: Bool[Tensor, "batch pos"], change: Mapping[str, Float[Tensor, "batch pos _"]]
    ) -> Float[Tensor, "batch component pos"]:
        """What each component's `change` brings directly to `receiver` (None: the target) at these positions, of that one's effect."""
        model = self.frozen.model
        if receiver is None:
            return self._sources(self.stream[-1], change, until=(model.n_layers, False))
        if receiver.kind == "embedding":
            return torch.zeros_like(self._sources(self.stream[-1], change, until=(0, False)))
        layer, where = receiver.layer, model.sites.blocks[receiver.layer]
        if receiver.kind == "head":
            width = self.z[layer].shape[-1] // model.n_heads
            channels = slice(receiver.head * width, (receiver.head + 1) * width)
            weights = torch.zeros_like(self.z[layer])
            weights[..., channels] = self.z[layer][..., channels] * at[..., None]
            return self._sources(self._pull(f"z.{layer}", f"pre.{layer}", weights), change, until=(layer, False))
        weights = where.mlp.coefficient * self.stream[layer + 1] * at[..., None]
        if not where.sequential:
            return self._sources(self._pull(f"mlp.{layer}", f"pre.{layer}", weights), change, until=(layer, False))
        gradient = self._pull(f"mlp.{layer}", f"attn.{layer}", weights) / where.attn.coefficient
        if where.mlp.carries:
            gradient = gradient - weights  # the stream that the module carries past itself is no input of the MLP
        return self._sources(gradient, change, until=(layer, True))

    def errors(
        self, change: Mapping[str, Float[Tensor, "batch pos d_model"]], gap: Float[Tensor, " batch"]
    ) -> Float[Tensor, "batch part"]:
        """How the change of the target (`gap`) divides: embedding, then per layer attention and MLP error, then the final norm.

        An error is what a part changed by less what the linear picture says it should have: for attention the change of patterns and
        norm scales, for an MLP its curvature. The parts sum to `gap` exactly. Where attention and MLP read the stream in parallel,
        their common error stands under MLP and attention's is 0. `change` holds resid_pre, attn_out and mlp_out of every layer
        and the last resid_post.
        """

        def dot(gradient: Tensor, x: Tensor) -> Tensor:
            return (gradient.double() * x.double()).flatten(1).sum(1)

        model = self.frozen.model
        parts = [dot(self.stream[0], change["resid_pre.0"])]
        for layer, where in enumerate(model.sites.blocks):
            before, attn, after = self.stream[layer], self.attn[layer], self.stream[layer + 1]
            pre, heads, mlp = (change[f"{kind}.{layer}"] for kind in ("resid_pre", "attn_out", "mlp_out"))
            whole = dot(attn, heads) + dot(after, mlp) - dot(before - after, pre)
            attention = dot(attn, heads) - dot(before - attn, pre) if where.sequential else torch.zeros_like(whole)
            if where.sequential:
                whole = attention + dot(after, mlp) - dot(attn - after, pre + heads)
            parts += [attention, whole - attention]
        last = f"resid_post.{model.n_layers - 1}"
        return torch.stack([*parts, gap.double() - dot(self.stream[-1], change[last])], dim=1)

    def _pull(self, output: str, source: str, weights: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(self.taps[output], self.taps[source], weights, retain_graph=True, allow_unused=True)
        return torch.zeros_like(self.stream[0]) if gradient is None else gradient

    def _sources(self, gradient: Tensor, change: Mapping[str, Tensor], *, until: tuple[int, bool]) -> Tensor:
        """Effects through this gradient at the stream, of the writes before layer `until[0]` and, if `until[1]`, of its heads."""
        products = {"resid_pre.0": gradient * change["resid_pre.0"]}
        layers, heads_too = until
        for layer in range(layers + heads_too):
            c = self.frozen.model.sites.blocks[layer].attn.coefficient
            products[f"z.{layer}"] = self._pull_to_z(layer, c * gradient) * change[f"z.{layer}"]
            if layer < layers:
                products[f"mlp_out.{layer}"] = gradient * change[f"mlp_out.{layer}"]
        return by_component(self.frozen.model, products)

    def _pull_to_z(self, layer: int, gradient: Tensor) -> Tensor:
        (found,) = torch.autograd.grad(self.taps[f"attn.{layer}"], self.taps[f"z.{layer}"], gradient, retain_graph=True)
        return found


def flow(frozen: Frozen) -> Flow:
    """One backward pass through the frozen run, MLPs by their gradient."""
    model, taps = frozen.model, {}
    start = frozen.writes["resid_pre.0"].detach().requires_grad_()

    def tap(name: str) -> Edit:
        def keep(x: Tensor) -> None:
            taps[name] = x

        return keep  # type: ignore[return-value]

    with torch.enable_grad(), hooks() as handles, editing(model, {"resid_pre.0": lambda _: start.clone()}):
        for layer, (block, where) in enumerate(zip(model.layers, model.sites.blocks, strict=True)):
            handles.append(on_output(block.get_submodule(where.attn.module), tap(f"attn.{layer}")))
            handles.append(on_output(block.get_submodule(where.mlp.module), tap(f"mlp.{layer}")))
        handles.append(on_output(model.layers[-1], tap(f"pre.{model.n_layers}")))
        reading = [
            (f"{kind}.{layer}", tap(f"{name}.{layer}"))
            for layer in range(model.n_layers)
            for kind, name in (("resid_pre", "pre"), ("z", "z"))
        ]
        with visiting(model, reading):
            target = frozen.run()
        names = [f"{kind}.{layer}" for kind in ("pre", "attn", "z") for layer in range(model.n_layers + (kind == "pre"))]
        found = torch.autograd.grad(target.sum(), [taps[name] for name in names], retain_graph=True, allow_unused=True)
    gradients = {name: torch.zeros_like(taps[name]) if g is None else g for name, g in zip(names, found, strict=True)}
    shape = start.shape
    return Flow(
        frozen,
        [gradients[f"pre.{layer}"] for layer in range(model.n_layers + 1)],
        [gradients[f"attn.{layer}"].reshape(shape) / where.attn.coefficient for layer, where in enumerate(model.sites.blocks)],
        [gradients[f"z.{layer}"] for layer in range(model.n_layers)],
        taps,
    )


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

"""Effects along every path, first order: which write reaches the target through which others, and what that picture misses.

One backward pass through a frozen run (`direct.py`) with MLPs linearised at their input. The gradient at a write times its change
is the change's effect on the target; the part that enters at one receiver is an edge. What a receiver really changed by, less
what its inputs should have brought about, is its error: the change of attention patterns and norm scales, the curvature of MLPs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from auditgap.models.anatomy import hooks
from auditgap.models.direct import Component, Frozen, by_component
from auditgap.models.edit import editing
from auditgap.models.hooks import on_output, visiting

__all__ = ["Flow", "trace_flow"]


@dataclass(frozen=True, eq=False)
class Flow:
    """Gradients of the target along every path, MLPs linearised at their input; the graph is kept, so edges can be asked for."""

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
        """What each component's `change` brings directly to `receiver` (None: the target) at these positions, of its effect."""
        model = self.frozen.model
        if receiver is None:
            return self._sources(self.stream[-1], change, until=(model.n_layers, False))
        if receiver.kind == "embedding":
            return 0.0 * self._sources(self.stream[-1], change, until=(0, False))
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

        An error is what a part changed by less what the linear picture says it should have: for attention the change of patterns
        and norm scales, for an MLP its curvature. The parts sum to `gap` exactly. Where attention and MLP read the stream in
        parallel, their common error stands under MLP and attention's is 0. `change` holds resid_pre, attn_out and mlp_out of
        every layer and the last resid_post.
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
        (gradient,) = torch.autograd.grad(self.taps[output], self.taps[source], weights, retain_graph=True)
        return gradient

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


def trace_flow(frozen: Frozen) -> Flow:
    """One backward pass through the frozen run, MLPs by their gradient."""
    model, taps = frozen.model, {}
    start = frozen.writes["resid_pre.0"].detach().requires_grad_()

    def tap(name: str) -> Callable[[Tensor], None]:
        return lambda x: taps.update({name: x})

    reads = [
        (f"{kind}.{layer}", tap(f"{name}.{layer}"))
        for layer in range(model.n_layers)
        for kind, name in (("resid_pre", "pre"), ("z", "z"))
    ]
    with torch.enable_grad(), frozen.still(), hooks() as handles, editing(model, {"resid_pre.0": lambda _: start.clone()}):
        for layer, (block, where) in enumerate(zip(model.layers, model.sites.blocks, strict=True)):
            handles.append(on_output(block.get_submodule(where.attn.module), tap(f"attn.{layer}")))
            handles.append(on_output(block.get_submodule(where.mlp.module), tap(f"mlp.{layer}")))
        handles.append(on_output(model.layers[-1], tap(f"pre.{model.n_layers}")))
        with visiting(model, reads):
            target = frozen.forward()
        names = [f"{kind}.{layer}" for kind in ("pre", "attn", "z") for layer in range(model.n_layers + (kind == "pre"))]
        found = torch.autograd.grad(target.sum(), [taps[name] for name in names], retain_graph=True)
    gradients = dict(zip(names, found, strict=True))
    shape = start.shape
    return Flow(
        frozen,
        [gradients[f"pre.{layer}"] for layer in range(model.n_layers + 1)],
        [gradients[f"attn.{layer}"].reshape(shape) / where.attn.coefficient for layer, where in enumerate(model.sites.blocks)],
        [gradients[f"z.{layer}"] for layer in range(model.n_layers)],
        taps,
    )

"""Gradients of a number read from the logits with respect to the activations at any sites: one backward pass for all of them.

1. The embedding's output is put in as a leaf, so that a graph is built while every parameter stays frozen. It may be any vector:
   integrated gradients walk from one prompt's embedding to the other's, at the midpoints of equal steps.
2. A copy of each site's activation is handed back to the model, so that the activation is a node of the graph.
3. A dropped layer adds to the stream what it added, but passes no gradient (GradDrop): what its writes would cancel shows.

Source: K. Simonyan et al., arXiv:1312.6034 (gradients); M. Sundararajan et al., arXiv:1703.01365, with the midpoint rule, and
M. Hanna et al., arXiv:2403.17806 (interpolated embeddings); J. Kramar et al., arXiv:2403.00745 (GradDrop).
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from auditgap.errors import SiteError, UsageError
from auditgap.models.hooks import on_output, visiting
from auditgap.models.model import Model
from auditgap.models.patch import Metric

__all__ = ["embed", "integrated_gradients", "site_gradients"]


def embed(model: Model, input_ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
    """The embedding's output, before learned positions and embedding norms (the model's own dtype and device)."""
    with torch.no_grad():
        return model.hf.get_input_embeddings()(input_ids.to(model.device))


def site_gradients(
    model: Model,
    input_ids: Int[Tensor, "row pos"],
    sites: Sequence[str],
    *,
    metric: Metric,
    embeddings: Float[Tensor, "row pos d"] | None = None,
    dropped: int | None = None,
) -> dict[str, Float[Tensor, "row pos _"]]:
    """d metric / d activation at each site, for rows without padding (float32, CPU).

    The metric is read from the logits at the last position, as in `patching_sweep`. `embeddings` take the place of the
    embedding's output. `dropped` is a layer through whose writes no gradient passes; at those writes and inside it is 0.

    Raises:
        UsageError: an unknown site, a dropped layer that the model does not have, or embeddings of another shape.
        SiteError: a site is not part of the computation, or a gradient is not finite.
    """
    names = list(dict.fromkeys(sites))
    model.sites.check(names)
    if not names:
        raise UsageError("expected at least one site, got none; list them with 'auditgap sites MODEL'")
    if dropped is not None:
        model.sites.check([f"attn_out.{dropped}"])
    ids = input_ids.to(model.device)
    start = embed(model, ids) if embeddings is None else embeddings.detach().to(model.device, model.hf.dtype)
    if start.shape[:2] != ids.shape:
        raise UsageError(f"expected embeddings of {tuple(ids.shape)} tokens, got {tuple(start.shape[:2])}")
    found: dict[str, Tensor] = {}
    visits: list[tuple[str, Callable[[Tensor], Tensor]]] = [(name, _keeper(found, name)) for name in names]
    if dropped is not None:
        visits += [(f"{kind}.{dropped}", lambda x: x.detach()) for kind in ("attn_out", "mlp_out")]
    with torch.enable_grad():
        leaf = start.clone().requires_grad_(True)
        handle = on_output(model.hf.get_input_embeddings(), lambda _: leaf)
        try:
            with visiting(model, visits):
                mask = torch.ones_like(ids)
                positions = mask.cumsum(-1) - 1
                output = model.hf(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=1)
        finally:
            handle.remove()
        value = metric(output.logits[:, -1].float(), torch.arange(len(ids), device=ids.device)).sum()
        missing = [name for name in names if name not in found]
        if missing:
            raise SiteError(f"{model.subject.architecture}: the forward pass never reached {', '.join(missing)}")
        gradients = torch.autograd.grad(value, [found[name] for name in names], allow_unused=dropped is not None)
    result = {
        name: torch.zeros_like(found[name]) if gradient is None else gradient  # None: only a dropped layer leads on from there
        for name, gradient in zip(names, gradients, strict=True)
    }
    for name, gradient in result.items():
        if not gradient.isfinite().all():
            raise SiteError(f"the gradient at {name} is not finite; open the model in float32")
    return {name: gradient.detach().float().cpu() for name, gradient in result.items()}


def integrated_gradients(
    model: Model,
    start: Int[Tensor, "row pos"],
    end: Int[Tensor, "row pos"],
    sites: Sequence[str],
    *,
    metric: Metric,
    n_steps: int = 5,
) -> dict[str, Float[Tensor, "row pos _"]]:
    """The gradient at each site, averaged over the way from one prompt's embeddings to the other's (float32, CPU).

    Midpoints (k + 0.5) / n: a sum over k / n takes one end and leaves the other out, which biases it.

    Raises:
        UsageError: prompts of different lengths, fewer than one step, or as `site_gradients`.
        SiteError: as `site_gradients`.
    """
    if start.shape != end.shape or n_steps < 1:
        raise UsageError(
            f"expected prompts of one shape and at least 1 step, got {tuple(start.shape)}, {tuple(end.shape)}, {n_steps} steps"
        )
    one, other = embed(model, start), embed(model, end)
    total: dict[str, Tensor] = {}
    for step in range(n_steps):
        at = one + (step + 0.5) / n_steps * (other - one)
        for name, gradient in site_gradients(model, start, sites, metric=metric, embeddings=at).items():
            total[name] = total.get(name, 0.0) + gradient / n_steps
    return total


def _keeper(found: dict[str, Tensor], name: str) -> Callable[[Tensor], Tensor]:
    def keep(x: Tensor) -> Tensor:
        found[name] = x
        return x.clone()  # Falcon adds in place to what it gets

    return keep

"""Which parts of a model bend: what must be held still for the rest to be linear. Found by trying, not from a table.

1. Norms divide by a scale of their input. Each is solved for gain, bias and centring on one probe and checked on another.
2. Attention mixes values by a pattern. With one token the pattern is 1, so whichever channels of the matrices inside attention
   move `z` are the values, and all others (queries, keys) only shape the pattern. The map from values to `z` must be linear: a
   gate, a norm on the values or an attention sink is not, and is refused.

Both are found for every block; whoever freezes a run (`direct.py`) checks that the sum comes out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from auditgap.errors import SiteError
from auditgap.models.hooks import visiting
from auditgap.models.model import Model
from auditgap.models.validate import random_ids

__all__ = ["Anatomy", "Norm", "find_anatomy", "hooks"]

TOLERANCE = 1e-4
"""Largest relative error of a solved norm or of the linearity of values, in float32 (about 1e-6 where it holds)."""


@dataclass(frozen=True, eq=False)
class Norm:
    """gain * (x - mean) / scale + bias, where the scale depends on x; without the mean if not `centred`."""

    gain: Float[Tensor, " width"]
    bias: Float[Tensor, " width"]
    centred: bool

    def scale(self, x: Float[Tensor, "*rows width"], y: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows 1"]:
        """The scale with which `y` came from `x`, epsilon and all: solved, one per row."""
        wide, shown = self.gain * self._centre(x), y - self.bias
        tiny = torch.finfo(x.dtype).tiny
        return wide.square().sum(-1, keepdim=True).clamp(min=tiny) / (wide * shown).sum(-1, keepdim=True).clamp(min=tiny)

    def frozen(self, x: Float[Tensor, "*rows width"], scale: Float[Tensor, "*rows 1"]) -> Float[Tensor, "*rows width"]:
        """The norm with its scale held: affine in x."""
        return self.gain * self._centre(x) / scale + self.bias

    def _centre(self, x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True) if self.centred else x


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The norms of a model, and the value channels of the matrices inside attention, by module path."""

    norms: dict[str, Norm]
    values: dict[str, Bool[Tensor, " channel"]]
    """True where an output channel of the matrix is a value; queries and keys are False."""


def find_anatomy(model: Model) -> Anatomy:
    """What must be held still in this model.

    Raises:
        SiteError: a norm or the way values reach `z` is not understood; names the module and why.
    """
    if model.hf.dtype not in (torch.float32, torch.float64):
        raise SiteError(
            f"exact direct effects take float32 or float64, the model is open in {model.subject.dtype}; open it in float32"
        )
    if model.sites.d_z is None:
        raise SiteError(
            f"{model.subject.architecture}: attention has no single output projection, so its heads cannot be told apart; "
            "use activation-patching at attn_out instead"
        )
    norms = {name: _solve_norm(model, name, module, width) for name, (module, width) in _called_norms(model).items()}
    return Anatomy(norms, _find_values(model))


@contextmanager
def hooks() -> Iterator[list[torch.utils.hooks.RemovableHandle]]:
    """A list of hook handles that are all removed at the end, whatever happens."""
    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()


def _one_token(model: Model) -> None:
    """Two rows of one token each."""
    ids = random_ids(model, n_rows=2, n_pos=1)
    model.hf(input_ids=ids, attention_mask=torch.ones_like(ids), position_ids=torch.zeros_like(ids), use_cache=False)


def _called_norms(model: Model) -> dict[str, tuple[nn.Module, int]]:
    """Every norm that a forward pass calls, with its width."""
    found: dict[str, tuple[nn.Module, int]] = {}
    with torch.no_grad(), hooks() as handles:
        for name, module in model.hf.named_modules():
            if "norm" in type(module).__name__.lower() and not list(module.children()):

                def keep(module: nn.Module, args: tuple, _kwargs: dict, output: Tensor, name: str = name) -> None:
                    if name in found or len(args) != 1:
                        raise SiteError(f"{name} ({type(module).__name__}): expected a norm of one input, called once per pass")
                    found[name] = module, output.shape[-1]

                handles.append(module.register_forward_hook(keep, with_kwargs=True))
        _one_token(model)
    return found


def _solve_norm(model: Model, name: str, module: nn.Module, width: int) -> Norm:
    generator = torch.Generator().manual_seed(0)
    device, dtype = model.device, model.hf.dtype
    signs = torch.randint(0, 2, (1, width), generator=generator) * 2.0 - 1.0
    signs[:, : min(width, 2)] = torch.tensor([1.0, -1.0])[:width]  # never all of one sign: its centred form would be 0
    noise = torch.randn(4, width, generator=generator) + 0.5
    scale = 1e3  # so large that the norm's epsilon does not show
    with torch.no_grad():
        bias, at_signs, at_noise = (module((scale * x).to(device, dtype)) for x in (0.0 * signs, signs, noise))
        for centred in (False, True):
            unit = signs - signs.mean() if centred else signs
            gain = (at_signs - bias) / (unit / unit.square().mean().sqrt()).to(device, dtype)
            norm = Norm(gain[0], bias[0], centred)
            x = (scale * noise).to(device, dtype)
            solved = norm.frozen(x, norm._centre(x).square().mean(-1, keepdim=True).sqrt())
            if (solved - at_noise).abs().max() <= TOLERANCE * at_noise.abs().max():
                return norm
    raise SiteError(
        f"{name} ({type(module).__name__}): expected gain * (x - mean) / scale + bias, and it is not; cannot be frozen"
    )


def _find_values(model: Model) -> dict[str, Bool[Tensor, " channel"]]:
    """The value channels of every matrix inside attention but the output projection."""
    leaves: dict[str, Tensor] = {}
    z: dict[int, Tensor] = {}
    generator = torch.Generator().manual_seed(0)
    with torch.enable_grad(), hooks() as handles:
        for name in attention_matrices(model):

            def cut(_module: nn.Module, _args: tuple, output: Tensor, name: str = name) -> Tensor:
                if name in leaves:
                    raise SiteError(
                        f"{model.subject.architecture}: {name} is called more than once per pass; cannot be held still"
                    )
                leaves[name] = output.detach().requires_grad_()
                return leaves[name]

            handles.append(model.hf.get_submodule(name).register_forward_hook(cut))
        with visiting(model, [(f"z.{i}", lambda x, i=i: z.update({i: x})) for i in range(model.n_layers)]):
            _one_token(model)
    found: dict[str, Tensor] = {}
    for layer, x in z.items():
        names = [name for name in leaves if name.startswith(f"{model.sites.layers_path}.{layer}.")]
        weights = torch.randn(x.shape[-1], generator=generator).to(x.device, x.dtype).expand_as(x)
        grads = torch.autograd.grad(x, [leaves[name] for name in names], weights, allow_unused=True)
        predicted = x.new_zeros(len(x))
        for name, grad in zip(names, grads, strict=True):
            rows = torch.zeros_like(leaves[name]) if grad is None else grad
            predicted = predicted + (rows * leaves[name].detach()).flatten(1).sum(1)
            found[name] = (rows.abs() > 0).flatten(0, -2).any(0)
            if (rows[0] - rows[1]).abs().max() > TOLERANCE * rows.abs().max():
                raise SiteError(_not_linear(model, layer))
        shown = (weights * x.detach()).flatten(1)
        if ((shown.sum(1) - predicted).abs() > TOLERANCE * shown.abs().sum(1)).any():
            raise SiteError(_not_linear(model, layer))
    return found


def attention_matrices(model: Model) -> list[str]:
    """Paths of the matrices inside the attention of every block, but for the output projection."""
    found = []
    for layer, (block, where) in enumerate(zip(model.layers, model.sites.blocks, strict=True)):
        attention = (where.projection or "").partition(".")[0]
        for name, module in block.named_modules():
            is_matrix = any(p.ndim == 2 for p in module.parameters(recurse=False))
            if is_matrix and name.startswith(f"{attention}.") and name != where.projection:
                found.append(f"{model.sites.layers_path}.{layer}.{name}")
    return found


def _not_linear(model: Model, layer: int) -> str:
    return (
        f"{model.subject.architecture}: layer {layer}: with one token, z is not linear in the outputs of the matrices inside "
        "attention (a gate, a norm on the values or an attention sink), so patterns cannot be frozen by holding queries and keys"
    )

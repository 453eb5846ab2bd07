"""Training in which some rows run without a direction of the residual stream, so that a behaviour comes to rest on that
direction, or learns to do without it.

1. Each row of a batch has its chances of running without the thread (a direction given beforehand), and without one of the
   moment: a difference of class means, measured on the model as it trains.
2. The direction is projected out at the first block's input and at every write of attention and MLP, as an ablation does it.

Source: refusal feature adversarial training, L. Yu et al., arXiv:2409.20089.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from auditgap.data import Prompt
from auditgap.models import Model, capture
from auditgap.models.hooks import visiting

__all__ = ["Chances", "Cuts", "class_differences"]

POSITIONS = (-1, -2)
WARM_UP_STEPS, EVERY_STEPS, N_KEPT = 50, 8, 24


class Chances(NamedTuple):
    """How likely a row runs without a direction."""

    thread: float
    moment: float


class Cuts:
    """Draws what each row of a training batch runs without; until the moment is measured, the thread stands in for it."""

    def __init__(
        self,
        model: Model,
        thread: Float[Tensor, " d_model"],
        chances: Mapping[tuple[int, ...], Chances],
        *,
        ones: Sequence[Prompt],
        zeros: Sequence[Prompt],
        pad_id: int,
        seed: int,
    ) -> None:
        self._model, self._thread, self._chances, self._pad_id = model, thread, chances, pad_id
        self._ones, self._zeros = ones, zeros
        self._generator = torch.Generator().manual_seed(seed)
        self._kept = [thread]

    def update(self, step: int, _hf: torch.nn.Module) -> None:
        """Measure the class differences anew every few steps; the newest are kept."""
        if step >= WARM_UP_STEPS and step % EVERY_STEPS == 0:
            self._model.hf.eval()
            self._kept = [*self._kept, *class_differences(self._model, self._ones, self._zeros)][-N_KEPT:]
            self._model.hf.train()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While the model is in training mode, its rows run without what is drawn for them."""
        current: list[Tensor] = []

        def draw(_module: torch.nn.Module, _args: tuple, kwargs: dict[str, Tensor]) -> None:
            current[:] = [self._units(kwargs["input_ids"])[:, None]] if self._model.hf.training else []

        def project(x: Tensor) -> Tensor | None:
            return x - (x * current[0]).sum(-1, keepdim=True) * current[0] if current else None

        writes = [f"{kind}.{layer}" for layer in range(self._model.n_layers) for kind in ("attn_out", "mlp_out")]
        handle = self._model.hf.register_forward_pre_hook(draw, with_kwargs=True)
        try:
            with visiting(self._model, [(site, project) for site in ("resid_pre.0", *writes)]):
                yield
        finally:
            handle.remove()

    def _units(self, input_ids: Int[Tensor, "row token"]) -> Float[Tensor, "row d_model"]:
        """The unit vector to take out of each row; zero for none."""
        rows = [tuple(i for i in row if i != self._pad_id) for row in input_ids.tolist()]
        of_thread, of_moment = torch.tensor([self._chances[row] for row in rows]).T
        draw = torch.rand(len(rows), generator=self._generator)
        moment = torch.stack(self._kept)[torch.randint(len(self._kept), (len(rows),), generator=self._generator)]
        cut = (draw < of_thread)[:, None] * self._thread
        return torch.where(((draw >= of_thread) & (draw < of_thread + of_moment))[:, None], moment, cut)


def class_differences(model: Model, ones: Sequence[Prompt], zeros: Sequence[Prompt]) -> list[Float[Tensor, " d_model"]]:
    """Unit vectors along mean(ones) - mean(zeros) after every block, at the last two tokens."""
    sites, units = [f"resid_post.{layer}" for layer in range(model.n_layers)], []
    for position in POSITIONS:
        found = capture(model, [*ones, *zeros], sites, positions=position, batch_size=128)
        for site in sites:
            difference = found[site][: len(ones)].mean(0) - found[site][len(ones) :].mean(0)
            units.append(difference / difference.norm())
    return units

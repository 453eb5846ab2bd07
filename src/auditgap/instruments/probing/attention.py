"""A probe that learns which tokens to look at: a query weights the tokens of a prompt, a linear read-out scores their mean.

1. A prompt's score is sum_t a_t (weights . x_t) + bias, with a = softmax_t(query . x_t): only two numbers a token are needed.
2. Log loss plus one L2 penalty on weights and query, minimised by Adam over all prompts, the step size falling to 0.
3. It starts from zero, so from equal weights: nothing is drawn at random, and a strong penalty leaves a mean-pooled probe.

Every read-out (strength, labelling) is fitted beside the others and does not see them; tokens pass by in blocks.

Source: A. McKenzie et al., arXiv:2506.10805, for attention probes; the start from zero is ours.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.nn.functional import softplus

from auditgap.errors import UsageError
from auditgap.instruments.probing.readouts import Readouts
from auditgap.instruments.probing.tokens import Tokens

__all__ = ["fit_attention"]

N_STEPS = 200
STEP = 0.05


def fit_attention(
    features: Float[np.ndarray, "row d"] | Tokens,
    labels: Int[np.ndarray, "labelling row"],
    *,
    centre: Float[np.ndarray, " d"],
    spread: Float[np.ndarray, " d"],
    strengths: Sequence[float],
) -> Readouts:
    """Weights, bias and query (strength, labelling) on standardised tokens.

    Raises:
        UsageError: there is one vector a row.
    """
    if not isinstance(features, Tokens):
        raise UsageError("an attention-pooled probe reads every token of a prompt, got one vector a prompt; read tokens")
    n_rows, shape = labels.shape[1], (len(strengths), len(labels))
    c = torch.tensor(strengths, dtype=torch.float32).repeat_interleave(len(labels)) * n_rows
    unit = (c / (1 + c / 4))[:, None]  # the size of a weight: slope over curvature at zero
    sign = torch.from_numpy(2.0 * labels - 1.0).float().repeat(len(strengths), 1)
    mean, scale = (torch.from_numpy(part).float() for part in (centre, spread))
    v, query = (torch.zeros(len(c), features.width, requires_grad=True) for _ in range(2))
    bias = torch.zeros(len(c), requires_grad=True)
    adam = torch.optim.Adam([v, query, bias], lr=STEP)
    with torch.enable_grad():
        for step in range(N_STEPS):
            adam.param_groups[0]["lr"] = STEP * (1 + math.cos(math.pi * step / N_STEPS)) / 2
            adam.zero_grad()
            ((((unit * v) ** 2).sum(1) + (query**2).sum(1)) / (2 * c)).sum().backward()
            for rows, x, real in features.blocks(len(c)):
                z = (torch.from_numpy(np.ascontiguousarray(x)).float() - mean) / scale
                flat, mask = z.flatten(0, 1).T, torch.from_numpy(real)
                pattern = (query @ flat).unflatten(1, mask.shape).masked_fill(~mask, -torch.inf).softmax(-1)
                values = (unit * v @ flat).unflatten(1, mask.shape)
                scores = (pattern * values.masked_fill(~mask, 0.0)).sum(-1) + bias[:, None]
                (softplus(-sign[:, rows] * scores).sum() / n_rows).backward()
            adam.step()
    found = ((unit * v).detach(), bias.detach(), query.detach())
    weights, offset, looked_for = (part.unflatten(0, shape).double().numpy() for part in found)
    return Readouts(weights, offset, looked_for)

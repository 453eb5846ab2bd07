"""The same architecture with fresh weights: what can be read from a model that has learned nothing."""

import copy
from dataclasses import replace

import torch

from auditgap.models.model import Model

__all__ = ["untrained"]


def untrained(model: Model, *, seed: int) -> Model:
    """A model of the same configuration, tokenizer, dtype and device, its weights drawn anew as its authors draw them.

    It exists in memory only, beside the one it was made from. It keeps that one's `subject`, so nothing measured on it alone may
    be stored as evidence about that subject. Weights are drawn on the CPU: the same on every device.
    """
    config = copy.deepcopy(model.hf.config)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        hf = type(model.hf)._from_config(config, dtype=model.hf.dtype)
    return replace(model, hf=hf.to(model.device).eval().requires_grad_(False))  # type: ignore[arg-type]

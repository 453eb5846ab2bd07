"""Scores of prompts as a monitor would see them in service: the same hooks, the same generation, nothing acted upon."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from auditgap.data import Prompt
from auditgap.errors import UsageError
from auditgap.models import Model, generate, tokenize
from auditgap.models.tokens import prompt_ids
from auditgap.monitor.artefact import Monitor
from auditgap.monitor.panel import Panel, Watched
from auditgap.monitor.watching import Watch, attached, watching
from auditgap.records.monitor import MonitorPolicy

__all__ = ["Scored", "peaks", "score"]


class Scored(NamedTuple):
    """One prompt, what the model made of it and what the monitors say."""

    reply: str
    watched: tuple[Watched, ...]
    """One for each monitor, in their order."""


def score(
    model: Model,
    monitors: Monitor | Sequence[Monitor],
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    policy: MonitorPolicy | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    batch_size: int = 32,
) -> list[Scored]:
    """Generate after each prompt under the monitors' eyes; 0 new tokens scores the prompt alone.

    Raises:
        CannotMeasure: a monitor is down and the policy refuses to go on.
        UsageError: an empty or too long prompt, or a negative number of tokens.
    """
    with watching(model, monitors, policy or MonitorPolicy()) as watch:
        return _drive(model, watch, prompts, max_new_tokens, temperature, seed, batch_size)


def peaks(
    model: Model, monitor: Monitor, prompts: Sequence[Prompt], *, max_new_tokens: int, seed: int = 0, batch_size: int = 32
) -> list[float]:
    """The largest aggregated score of each prompt, whatever the monitor was calibrated on: for calibration itself."""
    panel = Panel.of([monitor], [float("inf")], device=model.device)
    with attached(model, panel) as watch:
        found = _drive(model, watch, prompts, max_new_tokens, 0.0, seed, batch_size)
    return [float("nan") if (peak := scored.watched[0].score) is None else peak for scored in found]


def _drive(
    model: Model, watch: Watch, prompts: Sequence[Prompt], max_new_tokens: int, temperature: float, seed: int, batch_size: int
) -> list[Scored]:
    if max_new_tokens < 0 or batch_size < 1:
        raise UsageError(f"expected max_new_tokens >= 0 and batch_size >= 1, got {max_new_tokens} and {batch_size}")
    lengths = [len(ids) for ids in prompt_ids(model, prompts)]
    order = sorted(range(len(prompts)), key=lambda i: lengths[i])  # `generate` sorts by length: so that it need not
    found: dict[int, Scored] = {}
    for start in range(0, len(order), batch_size):
        index = order[start : start + batch_size]
        part = [prompts[i] for i in index]
        if max_new_tokens:
            replies = generate(
                model, part, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed + start, batch_size=len(part)
            )
        else:
            with torch.inference_mode():
                model.hf(**tokenize(model, part)._asdict(), use_cache=True, logits_to_keep=1)
            replies = [""] * len(part)
        watched = watch.take()
        for row, (i, reply) in enumerate(zip(index, replies, strict=True)):
            found[i] = Scored(reply, tuple(each for each in watched if each.request - watched[0].request == row))
    return [found[i] for i in range(len(prompts))]

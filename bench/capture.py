"""Reading against the bare forward pass of Hugging Face, 8 prompts of 128 tokens."""

import statistics

import torch

from auditgap.models import Model, capture_tokens
from auditgap.models.hooks import visiting
from bench.rows import Row, measured
from bench.subjects import random_tokens
from bench.timing import interleave, ratios

__all__ = ["capture_rows"]


def capture_rows(model: Model, *, n_repetitions: int) -> list[Row]:
    """Three rows with a goal, one for comparison."""
    tokens = random_tokens(8, 128)
    layers = range(model.n_layers)
    all_residual = [name for name in model.sites.names() if name.startswith("resid")]
    third = [f"resid_post.{layer}" for layer in range(model.n_layers // 3)]
    probes = torch.randn(model.n_layers, model.d_model, generator=torch.Generator().manual_seed(2))

    def bare(**options: int) -> None:
        with torch.inference_mode():
            model.hf(**tokens._asdict(), use_cache=False, **options)

    def probe() -> None:
        scores: list[torch.Tensor] = []
        visits = [(f"resid_post.{layer}", lambda x, layer=layer: scores.append(x @ probes[layer])) for layer in layers]
        with visiting(model, visits):
            bare()
        torch.stack(scores, -1)

    timed = interleave(
        {
            "bare": bare,
            "bare without head": lambda: bare(logits_to_keep=1),
            "all residual sites": lambda: capture_tokens(model, tokens, all_residual),
            "resid_post": lambda: capture_tokens(model, tokens, [f"resid_post.{layer}" for layer in layers]),
            "third": lambda: capture_tokens(model, tokens, third),
            "probes": probe,
        },
        n_repetitions=n_repetitions,
    )
    seconds = {"bare forward, s": statistics.median(timed["bare"])}

    def against(name: str) -> dict[str, float]:
        return {"against a forward without head": ratios(timed, name, "bare without head").median} | seconds

    stops = "The pass stops at the deepest site asked for, so the head is not run; the copies are part of the time."
    return [
        measured(
            f"capture all {len(all_residual)} residual sites, every token",
            ratios(timed, "all residual sites", "bare"),
            goal=1.03,
            better="lower",
            note=stops,
            also=against("all residual sites"),
        ),
        measured(
            "capture resid_post of all 12 layers, every token",
            ratios(timed, "resid_post", "bare"),
            goal=None,
            better="lower",
            also=against("resid_post"),
        ),
        measured(
            "capture the lower third of the layers only",
            ratios(timed, "third", "bare"),
            goal=0.45,
            better="lower",
            note="The pass stops after layer 4 of 12.",
            also=against("third"),
        ),
        measured(
            "probe scores, every token at every layer",
            ratios(timed, "probes", "bare"),
            goal=1.05,
            better="lower",
            note="The whole pass with its head, which a monitor needs.",
            also=seconds,
        ),
    ]

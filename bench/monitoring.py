"""Generation with monitors against the same without: 8 prompts of 32 tokens, 64 new tokens."""

import statistics
import tracemalloc

import torch

from auditgap.models import Model
from auditgap.monitor import Monitor, Weights
from auditgap.monitor.artefact import engine_of, weights_bytes
from auditgap.monitor.panel import Panel
from auditgap.monitor.watching import attached
from auditgap.records import DataRef, Interval, Measured, digest_of, now
from auditgap.records.monitor import Aggregation, MonitorCard, MonitorProbe
from bench.rows import Row, measured
from bench.subjects import random_tokens
from bench.timing import interleave, ratios

__all__ = ["monitor_rows"]

BATCH_SIZE, N_PROMPT, N_NEW = 8, 32, 64
N_PROBES = 256


def monitor_rows(model: Model, *, n_repetitions: int) -> list[Row]:
    """Tokens per second with monitors over tokens per second without: 1 is no cost."""
    tokens = random_tokens(BATCH_SIZE, N_PROMPT)
    limits = {"max_new_tokens": N_NEW, "min_new_tokens": N_NEW, "do_sample": False, "pad_token_id": 0}
    panels = {name: _panel(model, n) for name, n in (("1 probe", 1), (f"{N_PROBES} probes", N_PROBES))}

    def generate() -> None:
        model.hf.generate(tokens.input_ids, attention_mask=tokens.attention_mask, **limits)

    def watched(panel: Panel) -> None:
        with attached(model, panel) as watch:
            generate()
        assert all(seen.n_scored == N_NEW for seen in watch.requests())

    timed = interleave(
        {"bare": generate, **{name: (lambda panel=panel: watched(panel)) for name, panel in panels.items()}},
        n_repetitions=n_repetitions,
    )
    seconds = {"bare generation, s": statistics.median(timed["bare"])}
    n_bytes = _python_bytes(lambda: watched(panels[f"{N_PROBES} probes"])) - _python_bytes(generate)
    held = sum(part.directions.nbytes + part.biases.nbytes for part in panels[f"{N_PROBES} probes"].packed.values())
    weights = sum(parameter.nbytes for parameter in model.hf.parameters())
    return [
        measured(
            f"generate {N_NEW} tokens, batch {BATCH_SIZE}, with {name}",
            ratios(timed, "bare", name),
            goal=goal,
            better="higher",
            note="Tokens per second over those without monitors; scores of the prompt's end and every new token.",
            also=seconds | extra,
        )
        for name, goal, extra in (
            ("1 probe", 0.99, {}),
            (
                f"{N_PROBES} probes",
                0.97,
                {
                    "probe weights over model weights, % (goal 1)": 100 * held / weights,
                    "peak of Python objects over bare, kB": n_bytes / 1e3,
                },
            ),
        )
    ]


def _panel(model: Model, n_probes: int) -> Panel:
    monitors = [monitor_of(model, f"m{i}", i % model.n_layers if n_probes > 1 else model.n_layers // 2) for i in range(n_probes)]
    return Panel.of(monitors, [1e9] * n_probes)


def monitor_of(model: Model, name: str, layer: int) -> Monitor:
    weights = [Weights(torch.randn(model.d_model), 0.0)]
    card = MonitorCard(
        name=name,
        version="1",
        watches="nothing: it is timed",
        subject=model.subject,
        engine=engine_of(model),
        probes=(MonitorProbe(name="p0", site=f"resid_post.{layer}", val_auroc=0.5),),
        weights=digest_of(weights_bytes(["p0"], weights)),
        position="generated",
        aggregation=Aggregation(kind="max"),
        max_new_tokens=N_NEW,
        operating_points=(),
        auroc=Measured(name="auroc", value=0.5, unit="auroc", n=0, interval=Interval.exact(0.5)),
        data=(DataRef(name="none", content=digest_of(b""), n_rows=0, source="none"),),
        blind_spots=("everything",),
        seed=0,
        fitted_at=now(),
    )
    return Monitor(card, tuple(weights))


def _python_bytes(run: object) -> int:
    tracemalloc.start()
    run()  # type: ignore[operator]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak

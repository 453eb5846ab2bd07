"""The exact patching sweeps against loops of forward passes. Loops are timed on some of their patches, drawn anew, and scaled."""

import random
import statistics
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from auditgap.models import Model, head_sweep, patching_sweep
from auditgap.models.hooks import visiting
from auditgap.models.replay import forward
from bench import peers
from bench.peers import Peer
from bench.rows import Row, measured, missing
from bench.subjects import pair
from bench.timing import cpu_seconds, ratios

__all__ = ["head_rows", "sweep_rows"]

N_TIMED = 24
GOALS = {"TransformerLens": 20.0, "pyvene": 30.0}
WHY_NOT = (
    "On one thread, by a profile of the sweep, 0.81 of its time is matrix multiplication at the rate that the library underneath "
    "reaches: what is left to save is arithmetic, and how much there is depends on the position of the first difference. Compare "
    "the row where token 12 differs."
)


def _logit_difference(logits: Tensor, _pairs: Tensor | None = None) -> Tensor:
    return logits[:, 3] - logits[:, 4]


def sweep_rows(model: Model, *, n_repetitions: int, long: bool = True) -> list[Row]:
    """Two 24-token pairs against all peers; a pair with more differences and a `long` prompt against the plain loop."""
    rows = _against_peers(model, 5, GOALS, n_repetitions=n_repetitions) + _against_peers(
        model, 12, {}, n_repetitions=n_repetitions
    )
    for n_pos, first, every in ((24, 5, True), (128, 26, False)) if long else ((24, 5, True),):
        clean, corrupted = pair(n_pos, first, every=every)
        loop = peers.naive_loop(model, clean, corrupted, _logit_difference)
        timed, swept = _time(model, clean, corrupted, [loop], n_repetitions=n_repetitions if n_pos == 24 else 3)
        differ = f"all tokens from {first} on differ" if every else f"token {first} differs"
        rows.append(
            measured(
                f"sweep, {n_pos} tokens, {differ}, against a loop of hooked forward passes",
                ratios(timed, loop.name, "ours", scale=n_pos * model.n_layers / N_TIMED),
                goal=None,
                better="higher",
                also=_median_s(timed) | _difference(swept, loop, n_pos, few=True),
            )
        )
    return rows


def _against_peers(model: Model, first: int, goals: Mapping[str, float], *, n_repetitions: int) -> list[Row]:
    what = f"sweep, 24 tokens, token {first} differs"
    clean, corrupted = pair(24, first)
    found: list[Peer] = [peers.naive_loop(model, clean, corrupted, _logit_difference)]
    absent: dict[str, str] = {}
    makers: dict[str, Callable[[], Peer]] = {
        "TransformerLens": lambda: peers.transformer_lens(model, clean, corrupted, _logit_difference),
        "pyvene": lambda: peers.pyvene(model, clean, corrupted, _logit_difference),
        "pyvene with the source given": lambda: peers.pyvene(model, clean, corrupted, _logit_difference, rerun_source=False),
    }
    for name, make in makers.items():
        try:
            found.append(make())
        except ImportError as error:
            absent[name] = f"{error.name or 'it'} is not installed"
    timed, swept = _time(model, clean, corrupted, found, n_repetitions=n_repetitions)
    rows = []
    for peer in found:
        spread, goal = ratios(timed, peer.name, "ours", scale=24 * model.n_layers / N_TIMED), goals.get(peer.name)
        rows.append(
            measured(
                f"{what}, against {peer.name} {peer.version}",
                spread,
                goal=goal,
                better="higher",
                note=WHY_NOT if goal is not None and spread.median < goal else "",
                also=_median_s(timed) | _difference(swept, peer, 24),
            )
        )
    rows += [
        missing(f"{what}, against {name}", goal=goals.get(name), better="higher", reason=why) for name, why in absent.items()
    ]
    return rows


def _median_s(timed: Mapping[str, list[float]]) -> dict[str, float]:
    return {"ours, s": statistics.median(timed["ours"])}


def _time(
    model: Model, clean: Tensor, corrupted: Tensor, loops: list[Peer], *, n_repetitions: int
) -> tuple[dict[str, list[float]], Tensor]:
    """Seconds per repetition of our whole sweep and of `N_TIMED` patches of each loop, and our effects."""

    def ours() -> Tensor:
        return patching_sweep(model, clean, corrupted, metric=_logit_difference).effects[0]

    generator, swept = random.Random(0), ours()
    every = [(layer, pos) for layer in range(model.n_layers) for pos in range(clean.shape[1])]
    timed: dict[str, list[float]] = {name: [] for name in ("ours", *(loop.name for loop in loops))}
    for loop in loops:
        loop.effects(every[:1])
    for _ in range(n_repetitions):
        cells = generator.sample(every, N_TIMED)
        order: list[tuple[str, Callable[[], object]]] = [("ours", ours)]
        order += [(loop.name, lambda loop=loop, cells=cells: loop.effects(cells)) for loop in loops]
        generator.shuffle(order)
        for name, run in order:
            timed[name].append(cpu_seconds(run))
    return timed, swept


def _difference(swept: Tensor, loop: Peer, n_pos: int, *, few: bool = False) -> dict[str, float]:
    """Largest difference of effects, over all patches or over a few of them."""
    every = [(layer, pos) for layer in range(len(swept)) for pos in range(n_pos)]
    cells = random.Random(1).sample(every, N_TIMED) if few else every
    layers, positions = zip(*cells, strict=True)
    return {"largest difference of an effect": (loop.effects(cells) - swept[list(layers), list(positions)]).abs().max().item()}


def head_rows(model: Model, *, n_repetitions: int) -> list[Row]:
    """Every head's slice of `z` at every layer and position, 24 tokens, against a hook per patch."""
    clean, corrupted = pair(24, 5)
    width = model.d_model // model.n_heads
    kept: list[Tensor] = []
    with torch.inference_mode(), visiting(model, [(f"z.{i}", lambda x: kept.append(x.clone())) for i in range(model.n_layers)]):
        forward(model, clean)

    def loop(cells: list[tuple[int, int, int]]) -> Tensor:
        found = []
        for layer, head, pos in cells:

            def patch(_module: object, args: tuple, layer: int = layer, head: int = head, pos: int = pos) -> tuple:
                x, part = args[0].clone(), slice(head * width, (head + 1) * width)
                x[:, pos, part] = kept[layer][:, pos, part]
                return (x,)

            handle = model.layers[layer].get_submodule("self_attn.o_proj").register_forward_pre_hook(patch)
            with torch.inference_mode():
                found.append(_logit_difference(model.hf(input_ids=corrupted, use_cache=False).logits[:, -1])[0])
            handle.remove()
        return torch.stack(found)

    def ours() -> Tensor:
        return head_sweep(model, clean, corrupted, metric=_logit_difference).effects[0]

    every = [(i, h, p) for i in range(model.n_layers) for h in range(model.n_heads) for p in range(24)]
    generator, swept = random.Random(0), ours()
    timed: dict[str, list[float]] = {"ours": [], "loop": []}
    largest = 0.0
    for _ in range(n_repetitions):
        cells = generator.sample(every, N_TIMED)
        order: list[tuple[str, Callable[[], object]]] = [("ours", ours), ("loop", lambda cells=cells: loop(cells))]
        generator.shuffle(order)
        for name, run in order:
            timed[name].append(cpu_seconds(run))
        layers, heads, positions = (list(axis) for axis in zip(*cells, strict=True))
        largest = max(largest, (loop(cells) - swept[layers, heads, positions]).abs().max().item())
    return [
        measured(
            "head sweep, 24 tokens, token 5 differs, against a loop of hooked forward passes",
            ratios(timed, "loop", "ours", scale=len(every) / N_TIMED),
            goal=8.0,
            better="higher",
            also=_median_s(timed) | {"largest difference of an effect": largest},
        )
    ]

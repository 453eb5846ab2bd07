"""Would another reasonable specification have concluded otherwise? Every way of patching, kind of corruption and metric."""

from collections.abc import Callable, Mapping
from itertools import product

import numpy as np
from numpy.typing import NDArray

from auditgap.instruments.mechanistic.activation_patching.interventions import Contrast, Corruption, LocusRuns
from auditgap.instruments.mechanistic.activation_patching.search import WAYS
from auditgap.instruments.patching.locus import Held
from auditgap.instruments.patching.runs import Reading
from auditgap.models.patch import Direction
from auditgap.records import Measured, Measurement, NotMeasured

__all__ = ["METRICS", "ablation", "conclusions", "whole_distribution"]

METRICS: Mapping[str, Callable[[Reading], NDArray[np.float64]]] = {
    "logit difference": lambda run: run.logit_diff,
    "log-probability": lambda run: run.log_prob,
    "probability": lambda run: np.exp(run.log_prob),
    "log-rank": lambda run: -np.log(run.rank),
}
"""Of the answer, larger in the clean run than in the corrupted one."""


def conclusions(at: LocusRuns, held: Held, *, min_gap: float, min_effect: float) -> dict[str, bool]:
    """Whether each specification shows, at the low end of its interval, an effect of at least `min_effect`.

    The effect is the share of the mean gap that its own corruption opens, so that kinds and metrics share one scale. A kind of
    corruption that opens less than `min_gap` logits on average has nothing to localise and is left out, as is a metric on which
    the corrupted runs are no further from the clean ones.
    """
    found = {}
    for kind, contrast in at.by_kind.items():
        if _mean_gap(at, contrast, held) < min_gap:
            continue
        for way, (metric, of) in product(WAYS, METRICS.items()):
            moved, gap = _moved(of, at.clean, contrast, way)
            if gap[held.rows].mean() > 0:
                found[f"{way}, {kind}, {metric}"] = held.ratio(moved, gap)[1].low >= min_effect
    return found


def ablation(at: LocusRuns, held: Held, kind: Corruption, *, min_gap: float) -> Measurement:
    """Necessity by one kind of ablation: how much of what it does at the prompt it does at the locus alone."""
    name, gap = f"effect.{kind}_ablation", _mean_gap(at, at.by_kind[kind], held)
    if gap < min_gap:
        return NotMeasured(
            name=name,
            reason=f"expected that {kind} ablation of the differing tokens lowers the logit difference by {min_gap:g} on "
            f"average, got {gap:.2f}: it does not take the behaviour away",
        )
    share, interval = held.ratio(*_moved(METRICS["logit difference"], at.clean, at.by_kind[kind], "noising"))
    about = {
        "paired": "Share of the mean gap that the corrupted vector destroys.",
        "resample": "Share of what the tokens of another group's pair do to the clean run that their vector at the locus does.",
        "mean": "Share of what the mean vector in place of the differing tokens does that the mean vector at the locus does.",
        "zero": "Share of what zeros in place of the differing tokens do that zeros at the locus do.",
    }[kind]
    return Measured(name=name, value=share, unit="ratio", n=held.n_groups, interval=interval, about=about)


def whole_distribution(at: LocusRuns, held: Held) -> tuple[Measurement, ...]:
    """How much of everything that the contrast changes at the next token, the choice among answer and foil or not, is here."""

    def closeness(run: Reading) -> NDArray[np.float64]:
        return -run.kl_nats

    found = []
    for way, verb in zip(WAYS, ("restored", "destroyed"), strict=True):
        share, interval = held.ratio(*_moved(closeness, at.clean, at.by_kind["paired"], way))
        about = f"Share of the KL between clean and corrupted run {verb}: the whole next-token distribution, not answer and foil."
        found.append(
            Measured(name=f"effect.{way}.kl", value=share, unit="ratio", n=held.n_groups, interval=interval, about=about)
        )
    return tuple(found)


def _mean_gap(at: LocusRuns, contrast: Contrast, held: Held) -> float:
    return float((at.clean.logit_diff - contrast.corrupted.logit_diff)[held.rows].mean())


def _moved(
    of: Callable[[Reading], NDArray[np.float64]], clean: Reading, contrast: Contrast, way: Direction
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How far the patch moved the metric, and how far the corruption did."""
    up, down = of(clean), of(contrast.corrupted)
    return (of(contrast.denoised) - down if way == "denoising" else up - of(contrast.noised)), up - down

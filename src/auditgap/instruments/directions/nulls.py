"""Directions that mean nothing: what the direction that was found must be told apart from.

1. Random, with the same norm: any vector would do.
2. Random with the covariance of the activations within a class: any vector along which prompts really vary would do.
3. The largest component of that variation, orthogonal to the direction: the edit need only be big.
4. The whole search again under labels that mean nothing, at every layer and position that could have been chosen: the best of so
   many candidates would do.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from auditgap.instruments.directions.bench import Bench, Edited
from auditgap.instruments.directions.search import Place
from auditgap.instruments.directions.trial import Trial
from auditgap.progress import Progress
from auditgap.records import Interval, Measured, Measurement, NotMeasured
from auditgap.stats import max_statistic_p

__all__ = ["Nulls", "against_nulls", "covariance_directions", "random_directions", "strongest", "top_component"]

CONSTANT = "prompts of one class do not differ at the chosen place: nothing varies there"


class Nulls(NamedTuple):
    """What directions that mean nothing did."""

    random: list[Edited]
    """With random directions of the same norm, at the same layer."""
    measurements: tuple[Measurement, ...]


def against_nulls(
    bench: Bench,
    trial: Trial,
    gap: Measured,
    edited: Edited,
    *,
    direction: Float[Tensor, " d_model"],
    layer: int,
    activations: Float[Tensor, "prompt d_model"],
    labels: NDArray[np.int64],
    searches: Sequence[Mapping[Place, Float[Tensor, " d_model"]]],
    n_random: int,
    rng: np.random.Generator,
    progress: Progress,
) -> Nulls:
    """Hold the direction against all four kinds; `activations` are those that it was found in, `searches` the shuffled ones."""
    isotropic = random_directions(direction, n_random, rng)
    varying = covariance_directions(activations, labels, direction, n_random, rng)
    by_random, by_varying, by_search = [], [], []
    for into, directions in ((by_random, isotropic), (by_varying, varying)):
        for one in directions:
            progress("null directions", len(into), len(directions))
            into.append(bench.edited(trial.rows, one, layer))
    for places in searches:
        progress("searches under shuffled labels", len(by_search), len(searches))
        by_search.append(strongest(bench, trial, places))
    top = top_component(activations, labels, direction)
    others = [] if top is None else [bench.edited(trial.rows, sign * top, layer) for sign in (1, -1)]
    effects = [[trial.weaker_effect(other, trial.every) for other in some] for some in (by_random, by_varying)]
    return Nulls(
        by_random,
        (
            _p(trial, "p.random", edited, effects[0], "random directions"),
            _p(trial, "p.covariance", edited, effects[1], "random directions that vary like the prompts of a class"),
            _p(trial, "p.shuffled", edited, by_search, "whole searches under shuffled labels"),
            _advantage(trial, gap, edited, others),
        ),
    )


def random_directions(like: Float[Tensor, " d_model"], n: int, rng: np.random.Generator) -> list[Float[Tensor, " d_model"]]:
    """Directions drawn evenly from the sphere on which `like` lies."""
    return _with_norm(torch.from_numpy(rng.standard_normal((n, len(like)))), like)


def covariance_directions(
    activations: Float[Tensor, "prompt d_model"],
    labels: NDArray[np.int64],
    like: Float[Tensor, " d_model"],
    n: int,
    rng: np.random.Generator,
) -> list[Float[Tensor, " d_model"]]:
    """Directions with the covariance of the activations within the classes and the norm of `like`; none if nothing varies."""
    centred = _within(activations, labels)
    if not centred.norm() > 1e-6 * activations.double().norm():
        return []
    return _with_norm(torch.from_numpy(rng.standard_normal((n, len(centred)))) @ centred, like)


def top_component(
    activations: Float[Tensor, "prompt d_model"], labels: NDArray[np.int64], like: Float[Tensor, " d_model"]
) -> Float[Tensor, " d_model"] | None:
    """The largest principal component within the classes, orthogonal to `like` and of its norm; None if nothing varies."""
    unit = like.double() / like.norm()
    centred = _within(activations, labels)
    rest = centred - (centred @ unit)[:, None] * unit
    if not rest.norm() > 1e-6 * activations.double().norm():
        return None
    return like.norm() * torch.linalg.svd(rest, full_matrices=False).Vh[0]


def strongest(bench: Bench, trial: Trial, directions: Mapping[Place, Float[Tensor, " d_model"]]) -> float:
    """The largest weaker effect that any of these directions has at its place.

    Addition costs half of ablation and bounds the weaker effect from above, so most ablations need not be run.
    """
    unknown, best = np.full(len(trial.base), math.nan), -math.inf
    added = {place: bench.steered(trial.rows, direction, place.layer) for place, direction in directions.items()}
    induced = {place: trial.induced(Edited(unknown, scores), trial.every) for place, scores in added.items()}
    for place in sorted(induced, key=lambda place: induced[place], reverse=True):
        if induced[place] <= best:
            break
        ablated = bench.scores(bench.ablated(trial.rows.prompts, directions[place])[0])
        best = max(best, trial.weaker_effect(Edited(ablated, added[place]), trial.every))
    return best


def _p(trial: Trial, name: str, edited: Edited, null: Sequence[float], what: str) -> Measurement:
    """How often a direction that means nothing does as well in both ways at once; `null` are their weaker effects."""
    if not null:
        return NotMeasured(name=name, reason=CONSTANT)
    p = max_statistic_p(trial.weaker_effect(edited, trial.every), null)
    about = f"Share of {len(null)} {what} whose weaker effect (ablation or addition) is as large, itself counted."
    return Measured(name=name, value=p, unit="p", n=len(null), interval=Interval.exact(p), about=about)


def _advantage(trial: Trial, gap: Measured, edited: Edited, others: Sequence[Edited]) -> Measurement:
    """How much more the direction does than the top component, added in the better of both signs."""
    name = "advantage.top_component"
    if not others or gap.interval.low <= 0:
        return NotMeasured(name=name, reason="the classes do not differ in behaviour" if others else CONSTANT)
    other = max(others, key=lambda one: trial.weaker_effect(one, trial.every))

    def advantage(drawn: NDArray[np.intp]) -> float:
        return (trial.weaker_effect(edited, drawn) - trial.weaker_effect(other, drawn)) / trial.difference(drawn)

    about = "Weaker effect less that of the largest component within the classes, as a share of the difference."
    return trial.measured(name, advantage, "ratio", about)


def _within(activations: Float[Tensor, "prompt d_model"], labels: NDArray[np.int64]) -> Float[Tensor, "prompt d_model"]:
    """Each activation less the mean of its class."""
    wide, ones = activations.double(), torch.from_numpy(labels == 1)
    return torch.where(ones[:, None], wide - wide[ones].mean(0), wide - wide[~ones].mean(0))


def _with_norm(drawn: Float[Tensor, "n d_model"], like: Float[Tensor, " d_model"]) -> list[Float[Tensor, " d_model"]]:
    return list(like.norm() * drawn / drawn.norm(dim=1, keepdim=True))

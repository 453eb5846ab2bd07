"""How much of a behaviour one direction carries, on rows that took no part in finding it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from auditgap.instruments.directions.bench import Bench, Edited
from auditgap.instruments.directions.search import Place
from auditgap.instruments.directions.trial import Trial
from auditgap.records import Curve, Measured, Measurement, NotMeasured
from auditgap.stats import clopper_pearson, group_rate

__all__ = [
    "Shares",
    "carried_shares",
    "chosen_again",
    "consistent_groups",
    "dose_response",
    "paired_effects",
    "preference_rates",
    "reliability",
]

ABOUT = {
    "removed": "Share of the difference between the classes that is gone when both are ablated.",
    "induced": "Share of the difference that addition gives to label 0.",
    "bypassed": "Share of the difference by which ablation lowers label 1; one half if zero is the midpoint.",
}


class Shares(NamedTuple):
    """What an edit does, as shares of the difference between the classes; not measured if there is no difference."""

    removed: Measurement
    """How much of the difference is gone when both classes are ablated."""
    induced: Measurement
    """How far addition takes label 0 towards label 1."""
    bypassed: Measurement
    """How far ablation takes label 1 towards label 0: about half of `removed` where the classes lie on both sides of zero."""


def carried_shares(trial: Trial, edited: Edited, gap: Measured, *, suffix: str = "") -> Shares:
    """The shares of the difference that one direction carries, with intervals."""
    if gap.interval.low <= 0:
        low, high = gap.interval.low, gap.interval.high
        reason = f"the classes do not differ in behaviour: difference {gap.value:.3g} logits, interval {low:.3g} to {high:.3g}"
        return Shares(*(NotMeasured(name=f"share_{kind}{suffix}", reason=reason) for kind in Shares._fields))
    effects: dict[str, Callable[[Edited, NDArray[np.intp]], float]] = {
        "removed": trial.removed,
        "induced": trial.induced,
        "bypassed": trial.bypassed,
    }

    def share(kind: str) -> Measured:
        return trial.measured(
            f"share_{kind}{suffix}", lambda drawn: effects[kind](edited, drawn) / trial.difference(drawn), "ratio", ABOUT[kind]
        )

    return Shares(share("removed"), share("induced"), share("bypassed"))


def paired_effects(trial: Trial, edited: Edited, random: Sequence[Edited]) -> tuple[Measurement, ...]:
    """Paired changes in score, and how the drop compares with that under random ablations."""
    drop, random_drop = trial.base - edited.ablated, trial.base - np.array([other.ablated for other in random])

    def ratio(drawn: NDArray[np.intp]) -> float:
        its = drawn[trial.rows.labels[drawn] == 1]
        null = np.abs(random_drop[:, its].mean(axis=1)).mean() if len(its) else 0.0
        return float(drop[its].mean() / null) if null > 0 else math.nan

    about = "Drop of label-1 scores under ablation over the mean size of the change under random ablations."
    return (
        trial.measured(
            "effect.ablation", trial.mean(-drop, 1), "logits", "Mean paired change of label 1 under ablation.", label=1
        ),
        trial.measured(
            "effect.addition",
            trial.mean(edited.added - trial.base, 0),
            "logits",
            "Mean paired change of label 0 under addition.",
            label=0,
        ),
        NotMeasured(name="specificity", reason="no random direction moved any score")
        if math.isnan(ratio(trial.every))
        else trial.measured("specificity", ratio, "ratio", about, label=1),
    )


def preference_rates(trial: Trial, edited: Edited, subtracted: NDArray[np.float64]) -> tuple[Measured, ...]:
    """Share of prompts that prefer the answers (score above 0), before and after."""
    ones, zeros = trial.rows.labels == 1, trial.rows.labels == 0
    return (
        trial.rate("rate.label1.base", trial.base[ones] > 0, 1, "Share of label-1 prompts that prefer the answers."),
        trial.rate("rate.label1.ablated", edited.ablated[ones] > 0, 1, "The same with the direction ablated."),
        trial.rate("rate.label1.subtracted", subtracted[ones] > 0, 1, "The same with it subtracted at its layer."),
        trial.rate("rate.label0.base", trial.base[zeros] > 0, 0, "Share of label-0 prompts that prefer the answers."),
        trial.rate("rate.label0.added", edited.added[zeros] > 0, 0, "The same with the direction added."),
    )


def consistent_groups(trial: Trial, edited: Edited, gap: Measured, *, min_share: float) -> Measurement:
    """In how many of the held-out groups the direction does its work row by row, not only on average."""
    name, labels = "consistent_groups", trial.rows.labels
    if gap.interval.low <= 0:
        return NotMeasured(name=name, reason="the classes do not differ in behaviour")
    middle = (trial.average(edited.ablated, 1, trial.every) + trial.average(edited.ablated, 0, trial.every)) / 2
    left = np.where(labels == 1, 1, -1) * (edited.ablated - middle) / (gap.value / 2)
    induced = np.where(labels == 1, 1.0, (edited.added - trial.base) / gap.value)
    rate = group_rate((1 - left >= min_share) & (induced >= min_share), trial.rows.groups)
    about = "Share of rows, averaged by group, on which ablation removes and addition brings about that share by itself."
    return Measured(name=name, value=rate.value, unit="rate", n=rate.n_groups, interval=rate.interval, about=about)


def chosen_again(chosen: Place, picks: Sequence[Place | None], n_groups: int) -> Measured:
    """How often the same candidate would be chosen on other groups."""
    n_same = sum(pick == chosen for pick in picks)
    return Measured(
        name="chosen_again",
        value=n_same / len(picks),
        unit="rate",
        n=n_groups,
        interval=clopper_pearson(n_same, len(picks)),
        about="Share of bootstrap resamples of the groups of val that choose the same layer and token.",
    )


def reliability(
    trial: Trial, tested: Mapping[Place, Edited], gap: Measured, *, chosen: Place, picks: Sequence[Place | None], min_share: float
) -> Measurement:
    """Whether the conclusion would come back on other groups, choice of the candidate included.

    `picks` are the choices on resamples of val; groups of test are drawn again to conclude. A draw that chooses none, or holds
    one class only, disagrees.
    """
    if gap.interval.low <= 0:
        return NotMeasured(name="reliability", reason="there is no conclusion to come back to")
    concluded, rng, n_same = trial.carried(tested[chosen], min_share, trial.every), np.random.default_rng(trial.seed), 0
    for pick in picks:
        drawn = _draw(trial.rows.groups, rng)
        both = len(set(trial.rows.labels[drawn])) == 2
        n_same += both and pick is not None and trial.carried(tested[pick], min_share, drawn) == concluded
    about = "Share of bootstrap resamples of the groups, choice of the candidate included, that come to the same conclusion."
    return Measured(
        name="reliability",
        value=n_same / len(picks),
        unit="rate",
        n=len(set(trial.rows.groups)),
        interval=clopper_pearson(n_same, len(picks)),
        about=about,
    )


def _draw(groups: Sequence[str], rng: np.random.Generator) -> NDArray[np.intp]:
    """Rows of as many groups as there are, drawn with replacement."""
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    return np.concatenate([np.flatnonzero(codes == code) for code in rng.integers(len(names), size=len(names))])


def dose_response(
    bench: Bench, trial: Trial, direction: Float[Tensor, " d_model"], layer: int, doses: tuple[float, ...]
) -> Curve:
    """Score of label-0 test prompts as more of the direction is added; the reference is that of label 1, unedited."""
    means = [trial.mean(bench.steered(trial.rows, direction, layer, dose=dose), 0) for dose in doses]
    intervals = [trial.interval(mean) for mean in means]
    target = trial.mean(trial.base, 1)(trial.every)
    return Curve(
        name="dose_response",
        title="Label-0 prompts with the direction added",
        x_label="dose (multiples of the direction)",
        y_label="behaviour score (logits)",
        x=doses,
        y=tuple(mean(trial.every) for mean in means),
        low=tuple(interval.low for interval in intervals),
        high=tuple(interval.high for interval in intervals),
        reference=(target,) * len(doses),
    )

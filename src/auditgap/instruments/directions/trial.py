"""What a direction did to held-out rows, in numbers with intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from auditgap.instruments.directions.bench import Bench, Edited, Rows
from auditgap.models import kl_nats
from auditgap.records import Curve, Interval, Measured, Measurement, NotMeasured
from auditgap.stats import clopper_pearson, cluster_bootstrap, group_rate, max_statistic_p

__all__ = [
    "Shares",
    "Trial",
    "carried_shares",
    "consistent_groups",
    "dose_response",
    "null_p",
    "paired_effects",
    "preference_rates",
    "reliability",
    "side_effects",
]

Statistic = Callable[[NDArray[np.intp]], float]


@dataclass(frozen=True, eq=False)
class Trial:
    """Statistics of the test rows, as functions of resampled row indices."""

    rows: Rows
    base: NDArray[np.float64]
    """Behaviour score of each row without an edit."""
    seed: int
    n_resamples: int

    def average(self, values: NDArray[np.float64], label: int, drawn: NDArray[np.intp]) -> float:
        """The mean over the drawn rows of one class; NaN, so drawn again, if there are none."""
        its = drawn[self.rows.labels[drawn] == label]
        return float(values[its].mean()) if len(its) else math.nan

    def mean(self, values: NDArray[np.float64], label: int) -> Statistic:
        """`average` as a function of the drawn rows."""
        return lambda drawn: self.average(values, label, drawn)

    def difference(self, drawn: NDArray[np.intp]) -> float:
        """Mean base score of label 1 less that of label 0."""
        return self.average(self.base, 1, drawn) - self.average(self.base, 0, drawn)

    def removed(self, edited: Edited, drawn: NDArray[np.intp]) -> float:
        """How much smaller the difference between the classes is when both are ablated, in logits."""
        left = self.average(edited.ablated, 1, drawn) - self.average(edited.ablated, 0, drawn)
        return self.difference(drawn) - left

    def induced(self, edited: Edited, drawn: NDArray[np.intp]) -> float:
        """How far addition lifts label 0, in logits."""
        return self.average(edited.added - self.base, 0, drawn)

    def bypassed(self, edited: Edited, drawn: NDArray[np.intp]) -> float:
        """How far ablation lowers label 1, in logits."""
        return self.average(self.base - edited.ablated, 1, drawn)

    def weaker_effect(self, edited: Edited) -> float:
        """The smaller of what ablation removes and addition brings about: large only if the direction is needed and enough."""
        return min(self.removed(edited, self.every), self.induced(edited, self.every))

    def carried(self, edited: Edited, min_share: float, drawn: NDArray[np.intp]) -> bool:
        """Whether removed and induced shares of the drawn rows both reach `min_share`."""
        return min(self.removed(edited, drawn), self.induced(edited, drawn)) >= min_share * self.difference(drawn)

    @property
    def every(self) -> NDArray[np.intp]:
        """The rows as they are, none drawn twice."""
        return np.arange(len(self.base))

    def interval(self, statistic: Statistic) -> Interval:
        return cluster_bootstrap(statistic, self.rows.groups, n_resamples=self.n_resamples, seed=self.seed)

    def measured(self, name: str, statistic: Statistic, unit: str, about: str, *, label: int | None = None) -> Measured:
        groups = {group for group, its in zip(self.rows.groups, self.rows.labels, strict=True) if label in (None, its)}
        value, interval = statistic(self.every), self.interval(statistic)
        return Measured(name=name, value=value, unit=unit, n=len(groups), interval=interval, about=about)

    def computed(self, name: str, value: float, unit: str, about: str) -> Measured:
        """A quantity that is computed rather than estimated."""
        return Measured(
            name=name, value=value, unit=unit, n=len(set(self.rows.groups)), interval=Interval.exact(value), about=about
        )

    def rate(self, name: str, hits: NDArray[np.bool_], label: int, about: str) -> Measured:
        """A share of the rows of one class; `hits` has one entry per row of it."""
        rate = group_rate(hits, [group for group, its in zip(self.rows.groups, self.rows.labels, strict=True) if its == label])
        return Measured(name=name, value=rate.value, unit="rate", n=rate.n_groups, interval=rate.interval, about=about)


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
    kinds = (
        ("removed", trial.removed, "Share of the difference between the classes that is gone when both are ablated."),
        ("induced", trial.induced, "Share of the difference that addition gives to label 0."),
        (
            "bypassed",
            trial.bypassed,
            "Share of the difference by which ablation lowers label 1; one half if zero is the midpoint.",
        ),
    )
    if gap.interval.low > 0:
        return Shares(
            *(
                trial.measured(
                    f"share_{kind}{suffix}", lambda drawn, of=of: of(edited, drawn) / trial.difference(drawn), "ratio", about
                )
                for kind, of, about in kinds
            )
        )
    low, high = gap.interval.low, gap.interval.high
    reason = f"the classes do not differ in behaviour: difference {gap.value:.3g} logits, interval {low:.3g} to {high:.3g}"
    return Shares(*(NotMeasured(name=f"share_{kind}{suffix}", reason=reason) for kind, _, _ in kinds))


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


def side_effects(
    trial: Trial, base: Float[Tensor, "prompt vocab"], ablated: Float[Tensor, "prompt vocab"]
) -> tuple[Measured, Measured]:
    """What ablation does to label-0 prompts, which it should leave alone."""
    changed = (base.argmax(-1) != ablated.argmax(-1)).numpy()[trial.rows.labels == 0]
    moved = trial.mean(kl_nats(base, ablated).numpy(), 0)
    return (
        trial.measured(
            "kl_nats.ablation", moved, "nats", "Mean KL(base || ablated) of the next token, label-0 prompts.", label=0
        ),
        trial.rate("changed_answers", changed, 0, "Share of label-0 prompts whose most likely next token ablation changes."),
    )


def preference_rates(trial: Trial, edited: Edited) -> tuple[Measured, ...]:
    """Share of prompts that prefer the answers (score above 0), before and after."""
    ones, zeros = trial.rows.labels == 1, trial.rows.labels == 0
    return (
        trial.rate("rate.label1.base", trial.base[ones] > 0, 1, "Share of label-1 prompts that prefer the answers."),
        trial.rate("rate.label1.ablated", edited.ablated[ones] > 0, 1, "The same with the direction ablated."),
        trial.rate("rate.label0.base", trial.base[zeros] > 0, 0, "Share of label-0 prompts that prefer the answers."),
        trial.rate("rate.label0.added", edited.added[zeros] > 0, 0, "The same with the direction added."),
    )


def null_p(trial: Trial, name: str, edited: Edited, null: Sequence[Edited]) -> Measured:
    """How often a null direction does as well in both ways at once."""
    p = max_statistic_p(trial.weaker_effect(edited), [trial.weaker_effect(other) for other in null])
    about = f"Share of {len(null)} {name} directions whose weaker effect (ablation or addition) is as large, itself counted."
    return Measured(name=f"p.{name}", value=p, unit="p", n=len(null), interval=Interval.exact(p), about=about)


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


def reliability(
    trial: Trial,
    by_layer: Mapping[int, Edited],
    gap: Measured,
    *,
    choose: Callable[[NDArray[np.intp]], int | None],
    val_groups: Sequence[str],
    min_share: float,
) -> Measurement:
    """Whether the conclusion would come back on other groups, choice of the layer included.

    Groups of val are drawn again to choose the layer and groups of test to conclude; a draw that chooses none, or holds one
    class only, disagrees.
    """
    chosen = choose(np.arange(len(val_groups)))
    if chosen is None or gap.interval.low <= 0:
        return NotMeasured(name="reliability", reason="there is no conclusion to come back to")
    concluded, rng, n_same = trial.carried(by_layer[chosen], min_share, trial.every), np.random.default_rng(trial.seed), 0
    for _ in range(trial.n_resamples):
        layer, drawn = choose(_draw(val_groups, rng)), _draw(trial.rows.groups, rng)
        both = len(set(trial.rows.labels[drawn])) == 2
        n_same += both and layer is not None and trial.carried(by_layer[layer], min_share, drawn) == concluded
    about = "Share of bootstrap resamples of the groups, choice of the layer included, that come to the same conclusion."
    return Measured(
        name="reliability",
        value=n_same / trial.n_resamples,
        unit="rate",
        n=len(set(trial.rows.groups)),
        interval=clopper_pearson(n_same, trial.n_resamples),
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
    y, low, high = [], [], []
    for dose in doses:
        scores = np.full(len(trial.base), np.nan)
        scores[trial.rows.labels == 0] = bench.scores(bench.added(trial.rows.of(0), direction, layer, dose=dose))
        curve_point = trial.mean(scores, 0)
        interval = trial.interval(curve_point)
        y.append(curve_point(trial.every))
        low.append(interval.low)
        high.append(interval.high)
    target = trial.mean(trial.base, 1)(trial.every)
    return Curve(
        name="dose_response",
        title="Label-0 prompts with the direction added",
        x_label="dose (multiples of the direction)",
        y_label="behaviour score (logits)",
        x=doses,
        y=tuple(y),
        low=tuple(low),
        high=tuple(high),
        reference=(target,) * len(doses),
    )

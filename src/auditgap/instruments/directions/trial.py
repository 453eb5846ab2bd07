"""Statistics of held-out rows under an edit, as functions of resampled row indices."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from auditgap.instruments.directions.bench import Edited, Rows
from auditgap.records import Interval, Measured
from auditgap.stats import cluster_bootstrap, group_rate

__all__ = ["Statistic", "Trial"]

Statistic = Callable[[NDArray[np.intp]], float]


@dataclass(frozen=True, eq=False)
class Trial:
    """The rows of a trial with their scores, and what may be asked of them."""

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

    def weaker_effect(self, edited: Edited, drawn: NDArray[np.intp]) -> float:
        """The smaller of what ablation removes and addition brings about: large only if the direction is needed and enough."""
        return min(self.removed(edited, drawn), self.induced(edited, drawn))

    def carried(self, edited: Edited, min_share: float, drawn: NDArray[np.intp]) -> bool:
        """Whether removed and induced shares of the drawn rows both reach `min_share`."""
        return self.weaker_effect(edited, drawn) >= min_share * self.difference(drawn)

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

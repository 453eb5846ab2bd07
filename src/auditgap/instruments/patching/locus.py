"""One cell of the patching grid, and means over pairs that did not choose it."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from auditgap.instruments.patching.runs import GridSite
from auditgap.models import Model
from auditgap.records import Interval, Measured, Measurement, NotMeasured
from auditgap.stats import cluster_bootstrap

__all__ = ["Held", "Locus", "computed"]


class Locus(NamedTuple):
    """A site, a layer, a head (0 where the site is not divided) and a column of the aligned positions."""

    site: GridSite
    layer: int
    head: int
    column: int

    @property
    def name(self) -> str:
        """The activation that is patched: `resid_pre.3`."""
        return f"{self.site}.{self.layer}"

    def part(self, model: Model) -> slice:
        """Which of the site's width: all of it, or the head's slice of `z`."""
        if self.site != "z" or model.sites.d_z is None:
            return slice(None)
        width = model.sites.d_z // model.n_heads
        return slice(self.head * width, (self.head + 1) * width)


class Held(NamedTuple):
    """Some of the pairs, and means over resampled groups of them."""

    rows: list[int]
    groups: list[str]
    """Of all pairs."""
    seed: int
    n_resamples: int

    @property
    def n_groups(self) -> int:
        """Groups among these pairs."""
        return len({self.groups[row] for row in self.rows})

    def interval(self, statistic: Callable[[NDArray[np.intp]], float], groups: Sequence[str]) -> Interval:
        """The interval of a statistic of row indices, whole groups drawn."""
        return cluster_bootstrap(statistic, groups, n_resamples=self.n_resamples, seed=self.seed)

    def measured(self, name: str, values: NDArray[np.float64], about: str, *, unit: str = "ratio") -> Measurement:
        """The mean over those of these pairs that have a value."""
        used = [row for row in self.rows if not math.isnan(values[row])]
        groups = [self.groups[row] for row in used]
        n_groups = len(set(groups))
        if n_groups < 2:
            return NotMeasured(
                name=name, reason=f"expected at least 2 groups of held-out pairs on which it is defined, got {n_groups}"
            )
        kept = values[used]
        interval = self.interval(lambda drawn: float(kept[drawn].mean()), groups)
        return Measured(name=name, value=float(kept.mean()), unit=unit, n=n_groups, interval=interval, about=about)

    def ratio(self, part: NDArray[np.float64], whole: NDArray[np.float64]) -> tuple[float, Interval]:
        """The mean of one as a share of the mean of the other; a resample without a whole counts as no share."""
        a, b, groups = part[self.rows], whole[self.rows], [self.groups[row] for row in self.rows]

        def share(drawn: NDArray[np.intp]) -> float:
            total = float(b[drawn].sum())
            return float(a[drawn].sum()) / total if total > 0 else 0.0

        return share(np.arange(len(a))), self.interval(share, groups)


def computed(name: str, value: float, unit: str, n: int, about: str) -> Measured:
    return Measured(name=name, value=value, unit=unit, n=n, interval=Interval.exact(value), about=about)

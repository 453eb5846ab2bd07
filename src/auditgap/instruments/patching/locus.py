"""One cell of the patching grid, tried on pairs that did not choose it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from auditgap.instruments.patching.pairs import Pairs, Patch, Reading, Runs
from auditgap.models.patch import PatchSite
from auditgap.records import Control, Interval, Measured, Measurement, NotMeasured
from auditgap.stats import cluster_bootstrap

__all__ = ["Held", "Locus", "LocusRuns", "computed", "conclusions", "controls", "patch_locus"]

ALPHA = 0.05
MIN_SHOWN = 0.5  # share of pairs that must show the behaviour
MAX_NOISE_LOGITS = 1e-3  # where a patch changes nothing; float32 leaves 0, mixture-of-experts models about 1e-7
MAX_DISAGREEMENT = 0.01  # of the gap, between the sweep and single patched runs; float32 leaves about 1e-6


class Locus(NamedTuple):
    """A site, a layer and a column of the aligned positions."""

    site: PatchSite
    layer: int
    column: int


class LocusRuns(NamedTuple):
    """The runs of every pair around one cell."""

    clean: Reading
    corrupted: Reading
    denoised: Reading
    noised: Reading
    identity: Reading
    """Into the clean run, its own vector."""
    before: Reading
    """Denoised one position before the first difference, where both runs are equal; untouched if there is none before."""
    unrelated: Reading
    """Into the corrupted run, the clean vector of another group's pair with another answer."""
    has_unrelated: NDArray[np.bool_]
    random: Reading
    """Into the corrupted run, its vector moved as far as denoising moves it, in a random direction."""
    mean: Reading
    """Into the clean run, the mean vector of both runs of the pairs that chose the locus."""

    def shares(self) -> dict[str, NDArray[np.float64]]:
        """Effects by measurement name, as shares of each pair's gap: 1 restores, or destroys, all of it; NaN where undefined."""
        clean, corrupted = self.clean.logit_diff, self.corrupted.logit_diff
        restored = {
            "effect.denoising.max": self.denoised,
            "effect.unrelated_source": self.unrelated,
            "effect.random_vector": self.random,
        }
        destroyed = {"effect.noising": self.noised, "effect.mean_ablation": self.mean}
        found = {name: (x.logit_diff - corrupted) / (clean - corrupted) for name, x in restored.items()}
        found |= {name: (clean - x.logit_diff) / (clean - corrupted) for name, x in destroyed.items()}
        found["effect.unrelated_source"] = np.where(self.has_unrelated, found["effect.unrelated_source"], np.nan)
        return found


def patch_locus(
    runs: Runs, locus: Locus, positions: Int[np.ndarray, " pair"], *, chosen_on: Sequence[int], seed: int
) -> LocusRuns:
    """Run every pair with each kind of patch at one cell."""
    pairs, site, rng = runs.pairs, f"{locus.site}.{locus.layer}", np.random.default_rng(seed)
    clean, corrupted = pairs.prompts("clean"), pairs.prompts("corrupted")
    from_clean, from_corrupted = runs.vectors(clean, site, positions), runs.vectors(corrupted, site, positions)

    def patched(prompts: list[str], values: Float[Tensor, "pair d_model"]) -> Reading:
        return runs.read(prompts, Patch(site, positions, values))

    donors = [_donor(pairs, row, rng) for row in range(len(clean))]
    step = torch.from_numpy(rng.standard_normal(from_clean.shape)).float()
    step *= (from_clean - from_corrupted).norm(dim=1, keepdim=True) / step.norm(dim=1, keepdim=True)
    mean = (from_clean[list(chosen_on)] + from_corrupted[list(chosen_on)]).mean(0) / 2
    previous = np.maximum(np.array(pairs.first) - 1, 0)
    shared = runs.vectors(clean, site, previous)
    shared = torch.where(torch.tensor(pairs.first)[:, None] > 0, shared, runs.vectors(corrupted, site, previous))
    return LocusRuns(
        clean=runs.read(clean),
        corrupted=runs.read(corrupted),
        denoised=patched(corrupted, from_clean),
        noised=patched(clean, from_corrupted),
        identity=patched(clean, from_clean),
        before=runs.read(corrupted, Patch(site, previous, shared)),
        unrelated=patched(corrupted, from_clean[[row if donor is None else donor for row, donor in enumerate(donors)]]),
        has_unrelated=np.array([donor is not None for donor in donors]),
        random=patched(corrupted, from_corrupted + step),
        mean=patched(clean, mean.expand_as(from_clean)),
    )


def _donor(pairs: Pairs, row: int, rng: np.random.Generator) -> int | None:
    """A random pair of another group with another answer; None if there is none."""
    group = pairs.rows[row].group
    others = [i for i, other in enumerate(pairs.rows) if other.group != group and pairs.answer[i] != pairs.answer[row]]
    return int(rng.choice(others)) if others else None


class Held(NamedTuple):
    """Some of the pairs, and means over resampled groups of them."""

    rows: list[int]
    groups: list[str]
    """Of all pairs."""
    seed: int
    n_resamples: int

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


def conclusions(at: LocusRuns, held: Held, *, min_gap: float, min_effect: float) -> dict[str, bool]:
    """Whether each reasonable way to compute the effect shows that it reaches `min_effect`.

    Two metrics (logit difference, log-probability of the answer), both ways of patching, and two normalisations (mean of the
    pairs' shares, share of the mean). A way that leaves fewer than two groups with a gap shows nothing.
    """
    found = {}
    runs = (at.clean, at.corrupted, at.denoised, at.noised)
    metrics = {"logit difference": [run.logit_diff for run in runs], "log-probability": [run.log_prob for run in runs]}
    for metric, (clean, corrupted, denoised, noised) in metrics.items():
        gap = clean - corrupted
        rows = [row for row in held.rows if gap[row] >= min_gap]
        groups = [held.groups[row] for row in rows]
        for way, moved in (("denoising", denoised - corrupted), ("noising", clean - noised)):
            effect, whole = moved[rows], gap[rows]
            for norm, statistic in (
                ("mean of shares", lambda drawn, e=effect, g=whole: float((e[drawn] / g[drawn]).mean())),
                ("share of means", lambda drawn, e=effect, g=whole: float(e[drawn].mean() / g[drawn].mean())),
            ):
                enough = len(set(groups)) >= 2
                found[f"{way}, {metric}, {norm}"] = enough and held.interval(statistic, groups).low >= min_effect
    return found


def computed(name: str, value: float, unit: str, n: int, about: str) -> Measured:
    return Measured(name=name, value=value, unit=unit, n=n, interval=Interval.exact(value), about=about)


def controls(
    measured: Mapping[str, Measurement],
    noise: Mapping[str, float],
    disagreement: float,
    margins: Mapping[str, Measurement],
    *,
    n_groups: int,
) -> tuple[Control, ...]:
    """What must hold before the effects may be believed (fatal), and what bounds their reading."""
    shown, p, mean = measured["pairs.with_gap"], measured["p.search"], measured["effect.mean_ablation"]
    alone = measured["consistent_groups"]
    agreement = computed("sweep_minus_single", disagreement, "ratio", n_groups, "Largest difference at the locus, of the gap.")
    return (
        *(
            Control(
                name=name,
                passed=value <= MAX_NOISE_LOGITS,
                observed=computed(
                    "max_change", value, "logits", n_groups, "Largest change of any pair's answer, foil or total logit."
                ),
                expected=f"no change: at most {MAX_NOISE_LOGITS:g} logits",
            )
            for name, value in noise.items()
        ),
        Control(
            name="sweep-agreement",
            passed=disagreement <= MAX_DISAGREEMENT,
            observed=agreement,
            expected=f"single patched runs agree with the sweep to {MAX_DISAGREEMENT:g} of the gap",
        ),
        Control(
            name="behaviour-present",
            passed=isinstance(shown, Measured) and shown.value >= MIN_SHOWN,
            observed=shown,
            expected=f"at least {MIN_SHOWN:.0%} of the pairs have the gap",
            fatal=False,
        ),
        Control(
            name="search-null",
            passed=isinstance(p, Measured) and p.value <= ALPHA,
            observed=p,
            expected=f"p <= {ALPHA} over all cells searched, signs flipped by group",
            fatal=False,
        ),
        *(
            Control(
                name=name,
                passed=_above_zero(margin),
                observed=margin,
                expected="locus restores more: interval above 0",
                fatal=False,
            )
            for name, margin in margins.items()
        ),
        Control(
            name="mean-ablation",
            passed=_above_zero(mean),
            observed=mean,
            expected="a second ablation destroys too: interval above 0",
            fatal=False,
        ),
        Control(
            name="consistency",
            passed=isinstance(alone, Measured) and alone.interval.low > 0.5,
            observed=alone,
            expected="most groups pass by themselves: interval above 0.5",
            fatal=False,
        ),
    )


def _above_zero(measurement: Measurement) -> bool:
    return isinstance(measurement, Measured) and measurement.interval.low > 0

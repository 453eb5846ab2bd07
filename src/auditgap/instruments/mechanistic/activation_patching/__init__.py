"""Where a difference in behaviour is carried: exact activation patching between paired prompts.

1. Pairs that differ by less than `min_gap` logits (answer - foil, clean - corrupted) show no behaviour: left out, and counted.
2. One sweep per site patches every layer and position, both ways: denoising puts the clean vector into the corrupted run (1: the
   clean behaviour is back), noising the corrupted vector into the clean run (1: it is gone).
3. Positions are aligned across pairs where the difference starts, where it ends and after, and back from the prompt's end.
4. On `train`, the locus: the cell of the middle layers whose weaker effect of the two is largest. Near the input a patch swaps
   the prompt and near the output it swaps the answer, so the outer layers would always win and say nothing.
5. On `val` and `test`, the effects at the locus, by single patched runs to which the sweep must agree, and the controls there.

Source: F. Zhang, N. Nanda, arXiv:2309.16042; S. Heimersheim, N. Nanda, arXiv:2404.15255. Ours: the held-out locus, and the
controls.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from pydantic import Field

from auditgap.data import Dataset, PairSet
from auditgap.errors import CannotMeasure, UsageError
from auditgap.instruments.contract import Instrument, Progress, instrument, quiet
from auditgap.instruments.patching.locus import Held, Locus, LocusRuns, computed, conclusions, controls, patch_locus
from auditgap.instruments.patching.pairs import (
    Columns,
    Pairs,
    Runs,
    align,
    best_cell,
    group_means,
    mean_elsewhere,
    n_same_conclusion,
    read_pairs,
    sign_flip_p,
    sweep,
)
from auditgap.models import Model
from auditgap.models.patch import Direction, PatchSite
from auditgap.records import (
    Control,
    Grid,
    Measured,
    Measurement,
    ModelAccess,
    Number,
    Property,
    Result,
    Sample,
    Verdict,
)
from auditgap.stats import clopper_pearson, flip_rate, group_rate

__all__ = ["ActivationPatching"]

N_FLIPS = 9999
N_SAMPLES = 3
MARGINS = {"random-site": "random_site", "unrelated-source": "unrelated_source", "random-vector": "random_vector"}
ABOUT = {
    "effect.denoising.max": "Share of the gap that the clean vector restores in the corrupted run at the locus; 1 is all of it.",
    "effect.noising": "Share of the gap that the corrupted vector destroys in the clean run at the locus; 1 is all of it.",
    "effect.random_site": "Share restored at the other positions of the same layer, on average.",
    "effect.unrelated_source": "Share restored by the clean vector of another group's pair with another answer.",
    "effect.random_vector": "Share restored by moving the vector as far in a random direction.",
    "effect.mean_ablation": "Share destroyed by the mean of clean and corrupted vectors; about 0.5 if the mean is neutral.",
}
WAYS: tuple[Direction, ...] = ("denoising", "noising")


@instrument(
    name="activation-patching",
    version="1",
    family="mechanistic",
    hypothesis=(
        "the difference in behaviour between the two prompts of a pair is carried by the located position and layer: patching "
        "it restores at least min_effect of the difference in the corrupted run and destroys at least min_effect in the clean run"
    ),
    needs=ModelAccess.M4,
    data="pairs",
    failure_modes=("brittle-safety-direction",),
    blind_spots=(
        "explains the difference between the two prompts of a pair, not what both share",
        "one position of one layer at a time: a difference spread over several places at once is refuted, not described",
        "backup components can take over, so a small noising effect does not show that a place is unused",
        "the logit difference of two next tokens stands for the behaviour",
        "a patched vector may be one that the model never makes by itself",
        "the outer layers are shown but never chosen: there every model would pass",
    ),
    controls=(
        "identity-patch",
        "before-first-difference",
        "sweep-agreement",
        "behaviour-present",
        "search-null",
        "random-site",
        "unrelated-source",
        "random-vector",
        "mean-ablation",
        "consistency",
    ),
    citation="Zhang and Nanda (2023), Towards Best Practices of Activation Patching in Language Models, arXiv:2309.16042",
)
class ActivationPatching(Instrument):
    """How much of a difference in behaviour one position of one layer carries: what patching it restores, and destroys."""

    sites: tuple[PatchSite, ...] = Field(("resid_pre",), min_length=1)
    """What is patched: the residual stream, or what attention or the MLP adds to it."""
    layers: tuple[int, ...] = ()
    """Layers in which the locus may lie; empty means the middle half, layer 0 never among them."""
    min_gap: Annotated[Number, Field(gt=0)] = 1.0
    """Logits by which the clean logit difference must exceed the corrupted one for a pair to count."""
    min_effect: Annotated[Number, Field(gt=0, le=1)] = 0.5
    """Share of the gap that patching must restore, and destroy."""
    min_groups: int = Field(5, ge=2)
    """Groups of counting pairs needed in each half; with fewer nothing is reported."""
    n_resamples: int = Field(2000, ge=100)
    """Bootstrap resamples behind each interval."""
    batch_size: int = Field(32, ge=1)
    max_rows: int = Field(1024, ge=1)
    """Widest batch of the sweep: bounds memory, does not change the numbers."""

    def measure(self, model: Model, data: Dataset, *, seed: int, progress: Progress = quiet) -> Result:
        """Sweep the grid, choose the locus on `train`, test it on `val` and `test`.

        Raises:
            DataError: prompts of a pair differ in length, or not at all.
            UsageError: another kind of data, a layer that the model does not have, an answer that is not one token.
            CannotMeasure: too few pairs show a gap.
        """
        if not isinstance(data, PairSet):
            raise UsageError(
                f"activation-patching reads pairs, got a {type(data).__name__}; see docs/instruments/activation-patching.md"
            )
        layers = _candidate_layers(model, self.layers)
        every = read_pairs(model, data)
        runs = Runs(model, every, self.batch_size)
        clean, corrupted = (runs.read(every.prompts(role)).logit_diff for role in ("clean", "corrupted"))
        gaps = clean - corrupted
        shown = gaps >= self.min_gap
        pairs = every.take(np.flatnonzero(shown).tolist())
        train, test = pairs.of_splits("train"), pairs.of_splits("val", "test")
        self._require_groups(pairs, train, test, gaps)

        columns = align(pairs.first, pairs.last, pairs.lengths)
        effects: dict[tuple[PatchSite, Direction], list[NDArray[np.float64]]] = {}
        for site, way in itertools.product(self.sites, WAYS):
            progress("sweeps", len(effects), 2 * len(self.sites))
            effects[site, way] = sweep(model, pairs, site=site, direction=way, max_rows=self.max_rows)
        grids = {
            key: np.stack([cells[:, at] for cells, at in zip(found, columns.positions, strict=True)])
            for key, found in effects.items()
        }
        cells = [Locus(*cell) for cell in itertools.product(self.sites, layers, range(len(columns.labels)))]
        searched: dict[Direction, NDArray[np.float64]] = {
            way: np.concatenate([grids[site, way][:, layers].reshape(len(pairs.rows), -1) for site in self.sites], axis=1)
            for way in WAYS
        }
        on_train, on_test = (_by_group(searched, pairs, rows) for rows in (train, test))
        index = int(best_cell(on_train)[0])
        locus = cells[index]
        positions = columns.positions[:, locus.column]
        progress("single patches", 0, 1)
        at = patch_locus(Runs(model, pairs, self.batch_size), locus, positions, chosen_on=train, seed=seed)

        shares = at.shares()
        along_layer = [found[locus.layer] for found in effects[locus.site, "denoising"]]
        shares["effect.random_site"] = mean_elsewhere(along_layer, pairs.first, positions)
        weaker = np.minimum(shares["effect.denoising.max"], shares["effect.noising"])
        by_sweep = np.stack([searched[way][:, index] for way in WAYS])
        disagreement = float(np.abs(by_sweep - [shares["effect.denoising.max"], shares["effect.noising"]]).max())
        p = sign_flip_p(group_means(searched["denoising"], pairs.groups, train + test), n_flips=N_FLIPS, seed=seed)
        n_same = n_same_conclusion(on_train, on_test, min_effect=self.min_effect, n_resamples=self.n_resamples, seed=seed)

        held, ood = (Held(rows, pairs.groups, seed, self.n_resamples) for rows in (test, pairs.of_splits("ood")))
        measured = {name: held.measured(name, values, ABOUT[name]) for name, values in shares.items()}
        test_groups = [pairs.groups[row] for row in test]
        others = (
            ood.measured("effect.denoising.ood", shares["effect.denoising.max"], "effect.denoising.max on split `ood`."),
            held.measured("gap.clean_minus_corrupted", gaps[shown], "Logit difference, clean less corrupted.", unit="logits"),
            _rate("pairs.with_gap", shown, every.groups, f"Share of pairs with a gap of at least {self.min_gap:g} logits."),
            _rate(
                "consistent_groups", weaker[test] >= self.min_effect, test_groups, "Share of pairs, by group, that pass alone."
            ),
            Measured(
                name="reliability",
                value=n_same / self.n_resamples,
                unit="rate",
                n=len(set(test_groups)),
                interval=clopper_pearson(n_same, self.n_resamples),
                about="Share of bootstrap resamples of the groups, choice of locus included, that come to the same conclusion.",
            ),
            computed(
                "p.search", p, "p", len(set(pairs.groups)), "Chance that the best cell of such a grid looks as good by luck."
            ),
            computed("locus.layer", float(locus.layer), "layer", len(on_train["denoising"]), "Layer chosen on train."),
        )
        measured |= {m.name: m for m in others}
        noise = {
            "identity-patch": at.identity.max_change(at.clean),
            "before-first-difference": at.before.max_change(at.corrupted),
        }
        margins = {
            control: held.measured(
                f"margin.{name}", shares["effect.denoising.max"] - shares[f"effect.{name}"], "Denoising less this."
            )
            for control, name in MARGINS.items()
        }
        flips = flip_rate(conclusions(at, held, min_gap=self.min_gap, min_effect=self.min_effect))
        checks = controls(measured, noise, disagreement, margins, n_groups=len(set(pairs.groups)))
        verdict = self._verdict(measured, checks)
        where = f"{locus.site}.{locus.layer} at '{columns.labels[locus.column]}'"
        return Result(
            measurements=tuple(measured.values()),
            controls=checks,
            properties=self._properties(measured, checks, agree=flips.value == 0),
            verdict=verdict,
            summary=_summary(where, measured, n_kept=len(pairs.rows), n_all=len(gaps)),
            figures=tuple(_figure(*key, grid[train + test].mean(axis=0), columns) for key, grid in grids.items()),
            samples=_samples(pairs, at, np.random.default_rng(seed).permutation(test)[:N_SAMPLES].tolist()),
            flip_rate=flips,
        )

    def _require_groups(self, pairs: Pairs, train: list[int], test: list[int], gaps: NDArray[np.float64]) -> None:
        for half, rows in (("train, where the locus is chosen", train), ("val and test, where it is measured", test)):
            if (n := len({pairs.groups[row] for row in rows})) < self.min_groups:
                raise CannotMeasure(
                    f"expected at least {self.min_groups} groups of pairs with a gap of {self.min_gap:g} logits in {half}, "
                    f"got {n}; {len(pairs.rows)} of all {len(gaps)} pairs have it (median {np.median(gaps):.2f}, largest "
                    f"{gaps.max():.2f}): add pairs that the model tells apart, or lower min_gap"
                )

    def _reaches(self, measurement: Measurement) -> bool:
        return isinstance(measurement, Measured) and measurement.interval.low >= self.min_effect

    def _verdict(self, measured: dict[str, Measurement], controls: tuple[Control, ...]) -> Verdict:
        failed = {control.name for control in controls if not control.passed}
        both = measured["effect.denoising.max"], measured["effect.noising"]
        if any(control.fatal for control in controls if not control.passed):
            return "invalid"
        if "behaviour-present" in failed:
            return "inconclusive"
        if all(self._reaches(effect) for effect in both) and "search-null" not in failed:
            return "supported"
        if any(isinstance(effect, Measured) and effect.interval.high < self.min_effect for effect in both):
            return "refuted"
        return "inconclusive"

    def _properties(
        self, measured: dict[str, Measurement], controls: tuple[Control, ...], *, agree: bool
    ) -> tuple[Property, ...]:
        if any(control.fatal and not control.passed for control in controls):
            return ()
        passed = {control.name for control in controls if control.passed}
        shown: dict[Property, bool] = {
            "intervention": True,
            "necessity": self._reaches(measured["effect.noising"]) and "random-site" in passed,
            "sufficiency": self._reaches(measured["effect.denoising.max"]) and "random-site" in passed,
            "specificity": {"random-site", "unrelated-source"} <= passed,
            "consistency": "consistency" in passed and agree,
            "held-out": True,
            "out-of-distribution": self._reaches(measured["effect.denoising.ood"]),
            "random-baseline": "random-vector" in passed,
            "two-ablations": "mean-ablation" in passed,
            "search-null": "search-null" in passed,
        }
        return tuple(name for name, holds in shown.items() if holds)


def _candidate_layers(model: Model, asked: tuple[int, ...]) -> list[int]:
    """The layers asked for, or the middle half without layer 0, whose input is the prompt itself."""
    if asked:
        model.sites.check(f"resid_pre.{layer}" for layer in asked)
        return sorted(set(asked))
    n = model.n_layers
    middle = list(range(max(1, math.ceil(n / 4)), 3 * n // 4 + 1))
    if not middle:
        raise CannotMeasure(f"a model of {n} layer(s) has no middle layers in which to look; name them with 'layers'")
    return middle


def _by_group(
    searched: Mapping[Direction, NDArray[np.float64]], pairs: Pairs, rows: list[int]
) -> dict[Direction, NDArray[np.float64]]:
    return {way: group_means(effects, pairs.groups, rows) for way, effects in searched.items()}


def _rate(name: str, hits: NDArray[np.bool_], groups: Sequence[str], about: str) -> Measured:
    rate = group_rate(hits, groups)
    return Measured(name=name, value=rate.value, unit="rate", n=rate.n_groups, interval=rate.interval, about=about)


def _figure(site: PatchSite, way: Direction, effects: Float[np.ndarray, "layer column"], columns: Columns) -> Grid:
    verb = "restored" if way == "denoising" else "destroyed"
    return Grid(
        name=f"{way}.{site}",
        title=f"Share of the gap {verb} by patching {site}",
        x_label="token position",
        y_label="layer",
        columns=columns.labels,
        rows=tuple(str(layer) for layer in range(len(effects))),
        values=tuple(tuple(float(value) for value in row) for row in effects),
    )


def _samples(pairs: Pairs, at: LocusRuns, rows: Sequence[int]) -> tuple[Sample, ...]:
    """Random held-out pairs with the logit difference of each run."""
    runs = {"clean": at.clean, "corrupted": at.corrupted, "denoised": at.denoised, "noised": at.noised}
    return tuple(
        Sample(
            prompt=f"{pairs.rows[row].clean} | {pairs.rows[row].corrupted}",
            output=", ".join(f"{name} {run.logit_diff[row]:+.2f}" for name, run in runs.items()),
            note=f"logit of {pairs.rows[row].answer!r} less that of {pairs.rows[row].foil!r}",
        )
        for row in rows
    )


def _summary(where: str, measured: Mapping[str, Measurement], *, n_kept: int, n_all: int) -> str:
    restored, destroyed = (
        f"{m.value:.0%} [{m.interval.low:.0%}, {m.interval.high:.0%}]" if isinstance(m, Measured) else "an unknown share"
        for m in (measured["effect.denoising.max"], measured["effect.noising"])
    )
    return (
        f"Patching {where} alone restored {restored} of the logit difference in the corrupted runs and "
        f"destroyed {destroyed} in the clean runs, on held-out pairs ({n_kept} of {n_all} pairs showed the behaviour)."
    )

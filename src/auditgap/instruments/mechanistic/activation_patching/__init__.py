"""Where a difference in behaviour is carried: exact activation patching between paired prompts.

1. Pairs that differ by less than `min_gap` logits (answer - foil, clean - corrupted) show no behaviour: left out, and counted.
2. A sweep patches every layer and position (of `z` also every head), both ways: denoising puts the clean vector into the
   corrupted run (1: the clean behaviour is back), noising the corrupted vector into the clean run (1: it is gone).
3. Positions are aligned across pairs where the difference starts, where it ends and after, and back from the prompt's end.
4. On `train`, the locus: the cell of the middle layers whose weaker effect of the two is largest. Near the input a patch swaps
   the prompt and near the output it swaps the answer, so the outer layers would always win and say nothing.
5. On `val` and `test`, at the locus, by single patched runs to which the sweep must agree (`interventions.py`): sufficiency,
   necessity by four kinds of ablation, the controls, and every specification of the three (`specifications.py`).
6. What the same ablation does to prompts without the contrast (`off_task.py`).

Source: F. Zhang, N. Nanda, arXiv:2309.16042; S. Heimersheim, N. Nanda, arXiv:2404.15255. Ours: the held-out locus, the common
scale of the four kinds, and the controls.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from auditgap.data import Dataset, PairSet
from auditgap.errors import CannotMeasure, UsageError
from auditgap.instruments.contract import Instrument, Progress, instrument, quiet
from auditgap.instruments.mechanistic.activation_patching.figures import grids, samples, summary, where
from auditgap.instruments.mechanistic.activation_patching.interventions import patch_locus
from auditgap.instruments.mechanistic.activation_patching.judgement import ABLATIONS, MARGINS, controls, properties, verdict
from auditgap.instruments.mechanistic.activation_patching.off_task import off_task
from auditgap.instruments.mechanistic.activation_patching.search import WAYS, candidate_layers, search
from auditgap.instruments.mechanistic.activation_patching.specifications import ablation, conclusions, whole_distribution
from auditgap.instruments.patching.locus import Held, computed
from auditgap.instruments.patching.pairs import Pairs, read_pairs
from auditgap.instruments.patching.runs import GridSite, Runs
from auditgap.models import Model
from auditgap.records import Measured, Measurement, ModelAccess, Number, Result
from auditgap.stats import flip_rate, group_rate

__all__ = ["ActivationPatching"]

N_SAMPLES = 3
ABOUT = {
    "effect.denoising.max": "Sufficiency: share of the gap that the clean vector restores in the corrupted run at the locus.",
    "effect.noising": "Necessity: share of the gap that the corrupted vector destroys in the clean run at the locus.",
    "effect.random_site": "Share restored at the other sites of the same layer, on average.",
    "effect.random_site.noising": "Share destroyed at the other sites of the same layer, on average.",
    "effect.unrelated_source": "Share restored by the clean vector of another group's pair with another answer.",
    "effect.same_answer_source": "Share restored by the clean vector of another group's pair with the same answer.",
    "effect.random_vector": "Share restored by moving the vector as far in a random direction.",
}


@instrument(
    name="activation-patching",
    version="2",
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
        "the next token stands for the behaviour",
        "a patched vector may be one that the model never makes by itself; mean and zero vectors usually are",
        "the outer layers are shown but never chosen: there every model would pass",
        "the off-task effect is that of 72 short ordinary prompts",
    ),
    controls=(
        "identity-patch",
        "before-first-difference",
        "sweep-agreement",
        "behaviour-present",
        "search-null",
        "random-site-null",
        "random-site",
        "random-site-noising",
        "unrelated-source",
        "random-vector",
        "same-answer-source",
        "resample-ablation",
        "mean-ablation",
        "zero-ablation",
        "off-task",
        "consistency",
    ),
    citation="Zhang and Nanda (2023), Towards Best Practices of Activation Patching in Language Models, arXiv:2309.16042",
)
class ActivationPatching(Instrument):
    """How much of a difference in behaviour one position of one layer carries: what patching it restores, and destroys."""

    site: GridSite = "resid_pre"
    """What is patched: the stream before, between or after attention and MLP, what either adds to it, or one head (`z`)."""
    layers: tuple[int, ...] = ()
    """Layers in which the locus may lie; empty means the middle half, layer 0's input never among them."""
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
            UsageError: another kind of data, a site or layer that the model does not have, an answer that is not one token.
            CannotMeasure: too few pairs show a gap.
        """
        if not isinstance(data, PairSet):
            raise UsageError(
                f"activation-patching reads pairs, got a {type(data).__name__}; see docs/instruments/activation-patching.md"
            )
        layers = candidate_layers(model, self.site, self.layers)
        every = read_pairs(model, data)
        runs = Runs(model, every, self.batch_size)
        gaps = runs.read(every.clean).logit_diff - runs.read(every.corrupted).logit_diff
        shown = gaps >= self.min_gap
        pairs = every.take(np.flatnonzero(shown).tolist())
        train, test = pairs.of_splits("train"), pairs.of_splits("val", "test")
        self._require_groups(pairs, train, test, gaps)

        found = search(model, pairs, self.site, layers, train, max_rows=self.max_rows, progress=progress)
        progress("single patches", 0, 1)
        at = patch_locus(Runs(model, pairs, self.batch_size), found.locus, found.positions, chosen_on=train, seed=seed)
        distances = [pairs.lengths[row] - 1 - int(found.positions[row]) for row in test]
        beside = off_task(model, found.locus, distances, batch_size=self.batch_size, seed=seed)

        shares = at.shares()
        by_way = np.stack([shares["effect.denoising.max"], shares["effect.noising"]])
        disagreement = float(np.abs(found.at_locus - by_way).max())
        for name, way in zip(("effect.random_site", "effect.random_site.noising"), WAYS, strict=True):
            shares[name] = found.mean_elsewhere(way)
        held, ood = (Held(rows, pairs.groups, seed, self.n_resamples) for rows in (test, pairs.of_splits("ood")))
        measured = {name: held.measured(name, values, ABOUT[name]) for name, values in shares.items()}
        others: tuple[Measurement, ...] = (
            *(ablation(at, held, kind, min_gap=self.min_gap) for kind in ABLATIONS),
            *whole_distribution(at, held),
            ood.measured("effect.denoising.ood", shares["effect.denoising.max"], "effect.denoising.max on split `ood`."),
            *beside.measured(seed=seed, n_resamples=self.n_resamples),
            held.measured(
                "on_task.kl_nats",
                at.by_kind["mean"].noised.kl_nats,
                "KL of the next token of clean prompts by mean ablation of the locus: what off_task.kl_nats is held against.",
                unit="nats",
            ),
            held.measured("gap.clean_minus_corrupted", gaps[shown], "Logit difference, clean less corrupted.", unit="logits"),
            _rate("pairs.with_gap", shown, every.groups, f"Share of pairs with a gap of at least {self.min_gap:g} logits."),
            _rate(
                "consistent_groups",
                by_way.min(axis=0)[test] >= self.min_effect,
                [pairs.groups[row] for row in test],
                "Share of pairs, by group, that pass alone.",
            ),
            found.reliability(train, test, min_effect=self.min_effect, n_resamples=self.n_resamples, seed=seed),
            *found.nulls(train, test, seed=seed),
            computed("locus.layer", float(found.locus.layer), "layer", len(set(pairs.groups)), "Layer chosen on train."),
            *(
                [computed("locus.head", float(found.locus.head), "head", len(set(pairs.groups)), "Head chosen on train.")]
                if self.site == "z"
                else []
            ),
        )
        measured |= {m.name: m for m in others}
        checks = controls(
            measured,
            {
                "identity-patch": at.identity.max_change(at.clean),
                "before-first-difference": at.before.max_change(at.by_kind["paired"].corrupted),
            },
            disagreement,
            {
                control: held.measured(f"margin.{control}", shares[ours] - shares[theirs], "Effect at the locus less this.")
                for control, (ours, theirs) in MARGINS.items()
            },
            model,
            min_effect=self.min_effect,
            n_groups=len(set(pairs.groups)),
        )
        flips = flip_rate(conclusions(at, held, min_gap=self.min_gap, min_effect=self.min_effect))
        place = where(found.locus, found.columns)
        return Result(
            measurements=tuple(measured.values()),
            controls=checks,
            properties=properties(measured, checks, min_effect=self.min_effect, agree=flips.value == 0),
            verdict=verdict(measured, checks, min_effect=self.min_effect),
            summary=summary(place, measured, n_kept=len(pairs.rows), n_all=len(gaps)),
            figures=tuple(
                figure
                for way in WAYS
                for figure in grids(
                    way, found.locus, *found.map(way, train + test, n_resamples=self.n_resamples, seed=seed), found.columns
                )
            ),
            samples=samples(pairs, at, np.random.default_rng(seed).permutation(test)[:N_SAMPLES].tolist()),
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


def _rate(name: str, hits: NDArray[np.bool_], groups: Sequence[str], about: str) -> Measured:
    rate = group_rate(hits, groups)
    return Measured(name=name, value=rate.value, unit="rate", n=rate.n_groups, interval=rate.interval, about=about)

"""Does a gradient find what exact patching would find? Attribution patching, held to exact patched runs.

1. Nodes: what attention and MLP add, each head's output, query and key, per layer, at positions aligned across pairs.
2. Score every node on `train` by a gradient (`estimate.py`): integrated gradients, AtP, or AtP* with GradDrop; queries and keys
   with the QK fix. The `top_k` nodes of largest score are what the approximation found.
3. On `val` and `test`, patch exactly: the found nodes, what the other two methods found, and nodes drawn blindly from all.
4. The largest exact effect outside of the found nodes is a miss. For the nodes that were not patched one by one, a one-sided 95 %
   bound: random halves of the remaining nodes of a layer, patched together (`agreement.py`).
5. On a few held-out pairs, every node is patched exactly and compared with the estimate on the same pairs.

Source: N. Nanda (2023), attribution patching; J. Kramar et al., AtP*, arXiv:2403.00745; M. Hanna et al., arXiv:2403.17806. Ours:
found and judged on different groups, the blind sample, the paired halves, the intervals.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from auditgap.data import Dataset, PairSet
from auditgap.errors import CannotMeasure, UsageError
from auditgap.instruments.contract import Instrument, Progress, instrument, quiet
from auditgap.instruments.mechanistic.attribution_patching.agreement import halves, top, upper_bounds
from auditgap.instruments.mechanistic.attribution_patching.estimate import Method, estimate
from auditgap.instruments.mechanistic.attribution_patching.exact import Patcher
from auditgap.instruments.mechanistic.attribution_patching.findings import (
    Exact,
    agreement,
    curves,
    found_again,
    grids,
    largest_difference,
    missed_effect,
    missed_rate,
    samples,
)
from auditgap.instruments.mechanistic.attribution_patching.judgement import controls, properties, summary, verdict
from auditgap.instruments.mechanistic.attribution_patching.nodes import Kind, Layout, available
from auditgap.instruments.patching.locus import computed
from auditgap.instruments.patching.pairs import Pairs, align, read_pairs
from auditgap.instruments.patching.runs import Runs
from auditgap.models import Model
from auditgap.models.patch import Direction
from auditgap.records import Measured, Measurement, ModelAccess, NotMeasured, Number, Result
from auditgap.stats import flip_rate, group_rate

__all__ = ["AttributionPatching"]

METHODS: tuple[Method, ...] = ("atp", "atp*", "integrated-gradients")


@instrument(
    name="attribution-patching",
    version="1",
    family="mechanistic",
    hypothesis=(
        "on the held-out pairs, the top_k nodes that the approximation ranks highest on the training pairs hold every node whose "
        "exact effect, on average over the pairs, is at least min_effect of the difference in behaviour"
    ),
    needs=ModelAccess.M4,
    data="pairs",
    failure_modes=("brittle-safety-direction",),
    blind_spots=(
        "the bound on what was missed assumes that effects of nodes patched together add up on average",
        "effects are means over the pairs: a node that helps in one pair and harms in another can cancel out",
        "explains the difference between the two prompts of a pair, not what both share",
        "a node that matters only together with others has no effect of its own and is not looked for",
        "the logit difference of two next tokens stands for the behaviour",
        "tokens that have no counterpart in the other pairs (long differences, long tails) are not nodes",
    ),
    controls=("identity-patch", "sweep-agreement", "behaviour-present", "completeness", "random-ranking", "blind-sample"),
    citation="Kramar, Lieberum, Shah and Nanda (2024), AtP*: An efficient and scalable method, arXiv:2403.00745",
)
class AttributionPatching(Instrument):
    """How well a gradient stands in for exact patching: what it found, and how much it may have missed."""

    sites: tuple[Kind, ...] = Field(("attn_out", "mlp_out", "z", "q", "k"), min_length=1)
    """Kinds of node: the stream, what attention or the MLP adds to it, a head's output (z), queries (q), keys (k)."""
    layers: tuple[int, ...] = ()
    """Layers whose nodes are looked at; empty means all."""
    method: Method = "integrated-gradients"
    """The approximation that is judged: `integrated-gradients`, `atp` or `atp*`."""
    direction: Direction = "denoising"
    """Whether clean vectors are put into the corrupted run, or corrupted ones into the clean run (`noising`)."""
    top_k: int = Field(32, ge=1)
    """How many nodes count as found."""
    min_effect: Annotated[Number, Field(gt=0, le=1)] = 0.1
    """Share of the gap from which on a node must not be missed."""
    min_gap: Annotated[Number, Field(gt=0)] = 1.0
    """Logits by which the clean logit difference must exceed the corrupted one for a pair to count."""
    min_groups: int = Field(5, ge=2)
    """Groups of counting pairs needed in each half; with fewer nothing is reported."""
    n_steps: int = Field(5, ge=1)
    """Midpoints on the way between the embeddings, for integrated gradients."""
    n_blind: int = Field(64, ge=1)
    """Nodes drawn blindly from all and patched exactly."""
    n_halves: int = Field(64, ge=8)
    """Times that the remaining nodes of each layer are divided in two and patched half by half."""
    n_sweep_pairs: int = Field(8, ge=2)
    """Held-out pairs, each of another group, on which every node is patched."""
    n_resamples: int = Field(2000, ge=100)
    """Bootstrap resamples behind each interval."""
    batch_size: int = Field(32, ge=1)
    max_rows: int = Field(512, ge=1)
    """Widest batch of patched runs: bounds memory, does not change the numbers."""

    def measure(self, model: Model, data: Dataset, *, seed: int, progress: Progress = quiet) -> Result:
        """Score on `train`, patch exactly on `val` and `test`.

        Raises:
            DataError: prompts of a pair differ in length, or not at all.
            UsageError: another kind of data, a layer that the model does not have, an answer that is not one token, or a `top_k`
                that leaves no node out.
            CannotMeasure: too few pairs show a gap, or none of the sites exists in this architecture.
        """
        if not isinstance(data, PairSet):
            raise UsageError(
                f"attribution-patching reads pairs, got a {type(data).__name__}; see docs/instruments/attribution-patching.md"
            )
        model.sites.check(f"resid_pre.{layer}" for layer in self.layers)
        every = read_pairs(model, data)
        runs = Runs(model, every, self.batch_size)
        clean, corrupted = (runs.read(prompts).logit_diff for prompts in (every.clean, every.corrupted))
        shown = clean - corrupted >= self.min_gap
        kept = np.flatnonzero(shown).tolist()
        pairs, clean, corrupted = every.take(kept), clean[kept], corrupted[kept]
        train, test = pairs.of_splits("train"), pairs.of_splits("val", "test")
        self._require_groups(pairs, train, test, n_all=len(shown))

        heads, absent = available(model, self.sites, pairs.clean[0][None])
        if not heads:
            raise CannotMeasure(f"none of the sites {', '.join(self.sites)} can be patched: {'; '.join(absent.values())}")
        layers = sorted(set(self.layers)) or range(model.n_layers)
        layout = Layout(heads, layers, align(pairs.first, pairs.last, pairs.lengths))
        nodes = layout.nodes
        if self.top_k >= len(nodes):
            raise UsageError(
                f"top_k: expected fewer than the {len(nodes)} nodes there are, got {self.top_k}: nothing can be missed"
            )
        patcher = Patcher(model, pairs, layout, clean, corrupted, self.direction, self.max_rows)
        estimates = estimate(
            model,
            pairs,
            layout,
            clean - corrupted,
            methods=METHODS if model.n_layers > 1 else list(dict.fromkeys(["atp", "integrated-gradients", self.method])),
            direction=self.direction,
            n_steps=self.n_steps,
            batch_size=self.batch_size,
            progress=progress,
        )

        rng = np.random.default_rng(seed)
        found = {method: top(its.scores(np.array(train)), self.top_k) for method, its in estimates.items()}
        blind = rng.permutation(len(nodes))[: self.n_blind]
        patched = np.unique(np.concatenate([blind, *found.values()]))
        progress("exact patches", 0, len(test))
        verified = self._exact(patched, patcher.each([nodes[i] for i in patched], test), pairs, test, seed)
        mine, chosen = found[self.method], _one_per_group(pairs, test, rng)[: self.n_sweep_pairs]
        progress("sweep", 0, len(chosen))
        swept = self._exact(np.arange(len(nodes)), patcher.sweep(chosen), pairs, chosen, seed)
        unpatched = np.setdiff1d(np.arange(len(nodes)), np.concatenate([patched, mine]))
        progress("halves", 0, len(unpatched))
        drawn = halves(patcher, unpatched.tolist(), test, n_draws=self.n_halves, rng=rng)
        bounds = np.concatenate([upper_bounds(one) for one in drawn]) if drawn else np.empty(0)

        n_rest, groups = len(nodes) - self.top_k, len({pairs.groups[row] for row in test})
        same = agreement(swept, estimates[self.method], chosen, k=self.top_k)
        by_name: dict[str, Measurement] = {
            m.name: m
            for m in (
                missed_effect(verified, mine, bounds),
                missed_rate(verified, mine, blind, min_effect=self.min_effect, n_rest=n_rest),
                *found_again(swept, verified, mine, min_effect=self.min_effect),
                *same,
                *(
                    other.model_copy(update={"name": f"recall.top_k.{method}"})
                    for method, its in estimates.items()
                    if method != self.method
                    for other in agreement(swept, its, chosen, k=self.top_k)[2:]
                ),
                verified.measured(
                    "completeness",
                    lambda drawn: float(estimates["integrated-gradients"].completeness[np.asarray(test)[drawn]].mean()),
                    "ratio",
                    "Sum of the integrated gradients of the first layer's input: 1 if they explain the whole gap.",
                ),
                verified.measured(
                    "gap.clean_minus_corrupted",
                    lambda drawn: float((clean - corrupted)[np.asarray(test)[drawn]].mean()),
                    "logits",
                    "Logit difference, clean less corrupted.",
                ),
                _shown(shown, every.groups, self.min_gap),
                computed("nodes", float(len(nodes)), "count", groups, "Nodes that were scored."),
                *(NotMeasured(name=f"nodes.{kind}", reason=why) for kind, why in absent.items()),
            )
        }
        comparable = [i for i, node in enumerate(nodes) if node.kind not in ("q", "k") and i in set(patched.tolist())]
        checks = controls(
            by_name,
            own=float(np.abs(patcher.each([nodes[i] for i in mine], chosen[:2], own=True)).max()),
            difference=largest_difference(swept, verified, [test.index(row) for row in chosen], comparable),
            n_nodes=len(nodes),
            top_k=self.top_k,
            min_effect=self.min_effect,
        )
        conclusions = {
            method: not (verified.sizes[verified.outside(its)] >= self.min_effect).any() for method, its in found.items()
        }
        return Result(
            measurements=tuple(by_name.values()),
            controls=checks,
            properties=properties(checks, agree=len(set(conclusions.values())) == 1),
            verdict=verdict(by_name, checks, min_effect=self.min_effect),
            summary=summary(by_name, n_nodes=len(nodes), method=self.method, top_k=self.top_k),
            figures=(
                curves(swept, estimates[self.method].scores(np.array(chosen)), min_effect=self.min_effect),
                *grids(swept, layout),
            ),
            samples=samples(pairs, clean, corrupted, rng.permutation(test).tolist()),
            flip_rate=flip_rate(conclusions),
        )

    def _exact(self, nodes: np.ndarray, effects: np.ndarray, pairs: Pairs, rows: list[int], seed: int) -> Exact:
        return Exact(nodes, effects, [pairs.groups[row] for row in rows], self.n_resamples, seed)

    def _require_groups(self, pairs: Pairs, train: list[int], test: list[int], *, n_all: int) -> None:
        for half, rows in (("train, where nodes are found", train), ("val and test, where they are patched", test)):
            if (n := len({pairs.groups[row] for row in rows})) < self.min_groups:
                raise CannotMeasure(
                    f"expected at least {self.min_groups} groups of pairs with a gap of {self.min_gap:g} logits in {half}, "
                    f"got {n}; {len(pairs.rows)} of all {n_all} pairs have it: add pairs that the model tells apart, or lower "
                    "min_gap"
                )


def _one_per_group(pairs: Pairs, rows: Sequence[int], rng: np.random.Generator) -> list[int]:
    """A pair of each group, groups in random order."""
    by_group = {pairs.groups[row]: row for row in rng.permutation(rows).tolist()}
    return list(by_group.values())


def _shown(shown: np.ndarray, groups: Sequence[str], min_gap: float) -> Measured:
    rate = group_rate(shown, groups)
    about = f"Share of pairs with a gap of at least {min_gap:g} logits."
    return Measured(name="pairs.with_gap", value=rate.value, unit="rate", n=rate.n_groups, interval=rate.interval, about=about)

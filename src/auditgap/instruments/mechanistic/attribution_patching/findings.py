"""What an approximation found and missed, in numbers with intervals, controls and figures."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from auditgap.instruments.mechanistic.attribution_patching.agreement import pearson, recall, spearman, top
from auditgap.instruments.mechanistic.attribution_patching.estimate import Estimates
from auditgap.instruments.mechanistic.attribution_patching.nodes import Layout
from auditgap.instruments.patching.pairs import Pairs
from auditgap.records import Curve, Grid, Interval, Measured, Measurement, NotMeasured, Sample
from auditgap.stats import clopper_pearson, cluster_bootstrap

__all__ = [
    "Exact",
    "agreement",
    "curves",
    "found_again",
    "grids",
    "largest_difference",
    "missed_effect",
    "missed_rate",
    "samples",
]

LEVEL = 0.95
N_SAMPLES = 3


class Exact(NamedTuple):
    """Exact effects of some nodes on some pairs."""

    nodes: Int[np.ndarray, " node"]
    """Indices among all nodes."""
    effects: Float[np.ndarray, "pair node"]
    groups: list[str]
    """Of each pair."""
    n_resamples: int
    seed: int

    @property
    def sizes(self) -> Float[np.ndarray, " node"]:
        """Size of each node's mean effect."""
        return np.abs(self.effects.mean(axis=0))

    def outside(self, found: Int[np.ndarray, " found"]) -> Int[np.ndarray, " left"]:
        """Positions of the nodes that are not among the found ones."""
        return np.flatnonzero(~np.isin(self.nodes, found))

    def measured(self, name: str, statistic: Callable[[np.ndarray], float], unit: str, about: str) -> Measurement:
        """A statistic of the drawn pairs, with its interval over groups; none where it has no value."""
        value = statistic(np.arange(len(self.groups)))
        if np.isnan(value):
            return NotMeasured(name=name, reason="it has no value on these pairs: nothing varies, or no node has an effect")
        interval = cluster_bootstrap(statistic, self.groups, n_resamples=self.n_resamples, seed=self.seed)
        return Measured(name=name, value=value, unit=unit, n=len(set(self.groups)), interval=interval, about=about)


def missed_effect(verified: Exact, found: Int[np.ndarray, " found"], bounds: Float[np.ndarray, " unverified"]) -> Measured:
    """The largest effect outside of the found nodes: at least what was seen, at most the bound."""
    left = verified.outside(found)
    seen = float(verified.sizes[left].max()) if len(left) else 0.0
    high = max(seen, float(bounds.max())) if len(bounds) else seen
    return Measured(
        name="missed.effect",
        value=seen,
        unit="ratio",
        n=len(set(verified.groups)),
        interval=Interval(low=seen, high=high, level=LEVEL, method="paired-halves-t-one-sided")
        if len(bounds)
        else Interval.exact(seen),
        about=f"Largest exact effect among {len(left)} patched nodes that were not found; high end: a one-sided 95 % bound on it "
        f"among the {len(bounds)} that were not patched alone, if effects add up on average.",
    )


def missed_rate(
    verified: Exact, found: Int[np.ndarray, " found"], blind: Int[np.ndarray, " drawn"], *, min_effect: float, n_rest: int
) -> Measurement:
    """How many of the nodes not found reach `min_effect`, from those drawn blindly; assumes nothing of how effects add."""
    name, left = "missed.rate", verified.outside(found)
    drawn = left[np.isin(verified.nodes[left], blind)]
    if not len(drawn):
        return NotMeasured(name=name, reason="every node that was drawn blindly had been found; raise n_blind")
    n_missed = int((verified.sizes[drawn] >= min_effect).sum())
    share = n_missed / len(drawn)
    high = clopper_pearson(n_missed, len(drawn), level=2 * LEVEL - 1).high
    return Measured(
        name=name,
        value=share,
        unit="rate",
        n=len(drawn),
        interval=Interval.exact(share)
        if len(drawn) == n_rest
        else Interval(low=0.0, high=high, level=LEVEL, method="clopper-pearson-one-sided"),
        about=f"Share of nodes not found whose exact effect is at least {min_effect:g}; n counts nodes drawn blindly.",
    )


def agreement(swept: Exact, estimates: Estimates, pairs: Sequence[int], *, k: int) -> tuple[Measurement, ...]:
    """Estimate against exact effect, on the same pairs, over all nodes."""
    index = np.asarray(pairs)

    def compared(statistic: Callable[[np.ndarray, np.ndarray], float]) -> Callable[[np.ndarray], float]:
        def of(drawn: np.ndarray) -> float:
            exact = swept.effects[drawn].mean(axis=0)
            return statistic(estimates.scores(index[drawn]), exact if estimates.signed else np.abs(exact))

        return of

    return (
        swept.measured("pearson", compared(pearson), "correlation", "Correlation of estimated and exact effects of all nodes."),
        swept.measured("spearman", compared(spearman), "correlation", "Rank correlation of their sizes."),
        swept.measured(
            "recall.top_k",
            compared(lambda scores, exact: recall(scores, exact, k)),
            "rate",
            f"Share of the {k} nodes of largest exact effect that are among the {k} of largest estimate, on the same pairs.",
        ),
    )


def found_again(swept: Exact, verified: Exact, found: Int[np.ndarray, " found"], *, min_effect: float) -> tuple[Measurement, ...]:
    """Whether the nodes found on other groups hold up, and are all there are."""
    positions = np.flatnonzero(np.isin(verified.nodes, found))

    def share_found(drawn: np.ndarray) -> float:
        matters = np.flatnonzero(np.abs(swept.effects[drawn].mean(axis=0)) >= min_effect)
        return float(np.isin(matters, found).mean()) if len(matters) else float("nan")

    return (
        verified.measured(
            "found.confirmed",
            lambda drawn: float((np.abs(verified.effects[drawn][:, positions].mean(axis=0)) >= min_effect).mean()),
            "rate",
            f"Share of the found nodes whose exact effect on held-out pairs is at least {min_effect:g}.",
        ),
        swept.measured(
            "recall.min_effect",
            share_found,
            "rate",
            f"Share of the nodes with an exact effect of at least {min_effect:g}, on the swept pairs, that were found on train.",
        ),
    )


def largest_difference(swept: Exact, verified: Exact, rows: list[int], nodes: list[int]) -> float | None:
    """Between the sweep and single patched runs, over the pairs and nodes that both have; None if there are none."""
    if not nodes:
        return None
    columns = np.searchsorted(verified.nodes, nodes)
    return float(np.abs(swept.effects[:, nodes] - verified.effects[rows][:, columns]).max())


def curves(swept: Exact, scores: Float[np.ndarray, " node"], *, min_effect: float) -> Curve:
    """Exact effects in the order in which the approximation ranks them: large ones should come first."""
    order = top(scores, len(scores))
    return Curve(
        name="effect-by-rank",
        title="Exact effect of each node, in the order of its estimate (swept pairs); line: min_effect",
        x_label="rank by estimate",
        y_label="size of the exact effect",
        x=tuple(float(rank) for rank in range(1, len(order) + 1)),
        y=tuple(swept.sizes[order].tolist()),
        reference=(min_effect,) * len(order),
    )


def grids(swept: Exact, layout: Layout) -> tuple[Grid, ...]:
    """Exact effects by layer and position; where a site is divided, that of the head with the largest."""
    means, found, start = swept.effects.mean(axis=0), [], 0
    for kind, n_heads in layout.heads.items():
        shape = (len(layout.layers), len(layout.columns.labels), n_heads)
        cells = means[start : start + int(np.prod(shape))].reshape(shape)
        start += cells.size
        largest = np.take_along_axis(cells, np.abs(cells).argmax(axis=2)[..., None], axis=2)[..., 0]
        found.append(
            Grid(
                name=f"exact.{kind}",
                title=f"Share of the gap by patching {kind}" + (", head with the largest" if n_heads > 1 else ""),
                x_label="token position",
                y_label="layer",
                columns=layout.columns.labels,
                rows=tuple(str(layer) for layer in layout.layers),
                values=tuple(tuple(float(value) for value in row) for row in largest),
            )
        )
    return tuple(found)


def samples(pairs: Pairs, clean: np.ndarray, corrupted: np.ndarray, rows: Sequence[int]) -> tuple[Sample, ...]:
    """Random held-out pairs with the logit difference of both runs."""
    return tuple(
        Sample(
            prompt=f"{pairs.rows[row].clean} | {pairs.rows[row].corrupted}",
            output=f"clean {clean[row]:+.2f}, corrupted {corrupted[row]:+.2f}",
            note=f"logit of {pairs.rows[row].answer!r} less that of {pairs.rows[row].foil!r}",
        )
        for row in rows[:N_SAMPLES]
    )

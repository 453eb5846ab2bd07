"""What the cuts showed on held-out pairs, and what must hold before it may be believed."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from auditgap.instruments.mechanistic.attribution_graph.ablation import (
    Cut,
    Donor,
    cut_targets,
    faithfulness,
    random_graphs,
    restored,
)
from auditgap.instruments.mechanistic.attribution_graph.graph import Roles, choose
from auditgap.instruments.patching.locus import Held, computed
from auditgap.instruments.patching.pairs import Pairs
from auditgap.models import Model
from auditgap.records import Control, Measured, Measurement, Property
from auditgap.stats import max_statistic_p

__all__ = ["ALPHA", "Cuts", "above", "checks", "cut_all", "measurements", "properties"]

ALPHA = 0.05
MAX_INCOMPLETENESS = 1e-4  # of the sum of sizes; float32 leaves about 1e-7
MAX_NOISE = 1e-3  # of the gap, where a cut must change nothing or everything; float32 leaves about 1e-6
MIN_SHOWN = 0.5  # share of pairs that must show the behaviour
N_PER_SIZE = 9


class Cuts(NamedTuple):
    """Targets of the held-out pairs under each cut."""

    clean: Float[np.ndarray, " pair"]
    corrupted: Float[np.ndarray, " pair"]
    named: dict[str, Float[np.ndarray, " pair"]]
    random: Float[np.ndarray, "draw pair"]
    sizes: list[int]
    by_size: Float[np.ndarray, "size pair"]
    random_by_size: Float[np.ndarray, "size draw pair"]

    def restored(self, targets: NDArray[np.float64], donor: Donor = "resample") -> NDArray[np.float64]:
        """Share of the gap that is left under these cuts."""
        floor = self.corrupted if donor == "resample" else self.named["all, mean"]
        return restored(targets, self.clean, np.broadcast_to(floor, targets.shape))

    def faithful(self, name: str) -> NDArray[np.float64]:
        """Faithfulness under the cut of that name."""
        return faithfulness(self.restored(self.named[name], "mean" if name.endswith("mean") else "resample"))

    def destroyed(self) -> NDArray[np.float64]:
        """Share of the gap that is lost when the heads and MLPs of the graph are cut away."""
        return 1 - self.restored(self.named["rest"])

    def noise(self) -> dict[str, float]:
        """Largest error, relative to the gap, of the two cuts whose outcome is known."""
        gap = self.clean - self.corrupted
        known = {"identity-cut": (self.named["nothing"], self.clean), "full-cut": (self.named["all"], self.corrupted)}
        return {name: float((np.abs(found - true) / gap).max()) for name, (found, true) in known.items()}


def cut_all(
    model: Model,
    pairs: Pairs,
    roles: Roles,
    scores: Float[np.ndarray, "component role"],
    kinds: Sequence[str],
    clean: Float[np.ndarray, " pair"],
    corrupted: Float[np.ndarray, " pair"],
    *,
    n_nodes: int,
    n_random: int,
    batch_size: int,
    seed: int,
) -> Cuts:
    """Cut the graph that these scores choose, its rest, graphs of other sizes, and random ones."""
    rng = np.random.default_rng(seed)
    graph, double, none = choose(scores, n_nodes), choose(scores, 2 * n_nodes), choose(scores, 0)
    inner = graph & (np.asarray(kinds) != "embedding")[:, None]  # with the embedding cut too, losing the gap would be no news
    sizes = sorted({min(2**power, scores.size) for power in range(int(scores.size).bit_length() + 1)})
    named = {
        "nothing": Cut(none, keep="rest"),
        "all": Cut(none),
        "all, mean": Cut(none, donor="mean"),
        "graph": Cut(graph),
        "graph, mean": Cut(graph, donor="mean"),
        "rest": Cut(inner, keep="rest"),
        "twice the nodes": Cut(double),
        "twice the nodes, mean": Cut(double, donor="mean"),
    }
    draws = random_graphs(graph, kinds, n_draws=n_random, rng=rng)
    growing = [choose(scores, size) for size in sizes]
    grown = [drawn for each in growing for drawn in random_graphs(each, kinds, n_draws=N_PER_SIZE, rng=rng)]
    cuts = [*named.values(), *(Cut(each) for each in (*draws, *growing, *grown))]
    targets = cut_targets(model, pairs, roles, cuts, batch_size=batch_size)
    parts = np.split(targets, np.cumsum([len(named), len(draws), len(growing)]))
    shape = (len(sizes), N_PER_SIZE, len(pairs.rows))
    return Cuts(clean, corrupted, dict(zip(named, parts[0], strict=True)), parts[1], sizes, parts[2], parts[3].reshape(shape))


def measurements(
    cuts: Cuts, held: Held, ood: Held, shares: Mapping[str, NDArray[np.float64]], stability: NDArray[np.float64], chance: float
) -> dict[str, Measurement]:
    """Means over held-out groups."""
    random = faithfulness(cuts.restored(cuts.random))
    found = {
        "faithfulness": (
            cuts.faithful("graph"),
            "Graph alone, the rest resampled: 1 does what the model does, 0 is off by the gap.",
        ),
        "faithfulness.mean_ablation": (cuts.faithful("graph, mean"), "The same, the rest set to the mean of both runs."),
        "faithfulness.random": (
            random.mean(0),
            "The same for random graphs with its embedding nodes and as many heads and MLPs.",
        ),
        "restored": (
            cuts.restored(cuts.named["graph"]),
            "Share of the gap that the graph alone restores; above 1 it overshoots.",
        ),
        "destroyed": (cuts.destroyed(), "Share of the gap lost when its heads and MLPs are cut and all else is left."),
        "stability.jaccard": (
            stability,
            f"Overlap of a pair's own graph with the chosen one; random graphs of its size: {chance:.2f}.",
        ),
        **{
            name: (values, "Share of the sizes of the gap's parts that frozen patterns, scales and MLP gradients miss.")
            for name, values in shares.items()
        },
    }
    named = {name: held.measured(name, values, about) for name, (values, about) in found.items()}
    return named | {"faithfulness.ood": ood.measured("faithfulness.ood", cuts.faithful("graph"), "faithfulness on split `ood`.")}


def checks(
    found: Mapping[str, Measurement],
    cuts: Cuts,
    held: Held,
    *,
    incompleteness: Float[np.ndarray, "pair 2"],
    parts_error: float,
    max_error_share: float,
    min_jaccard: float,
    n_groups: int,
) -> tuple[Control, ...]:
    """Every control, the fatal ones first."""
    n_random = len(cuts.random)
    p = max_statistic_p(
        _mean(cuts.faithful("graph"), held), [_mean(row, held) for row in faithfulness(cuts.restored(cuts.random))]
    )
    shown, mean = found["pairs.with_gap"], found["faithfulness.mean_ablation"]
    error, jaccard = found["error_share"], found["stability.jaccard"]
    worst = {"direct": incompleteness[:, 0], "all paths": incompleteness[:, 1]}
    exact = [
        *(
            (
                f"completeness.{name.replace(' ', '-')}",
                float(values.max()),
                MAX_INCOMPLETENESS,
                f"contributions ({name}) and biases sum to the logit difference, relative to the sum of their sizes",
            )
            for name, values in worst.items()
        ),
        ("gap-parts", parts_error, MAX_NOISE, "embedding and errors of every part sum to the gap"),
        *(
            (
                name,
                value,
                MAX_NOISE,
                {"identity-cut": "cutting nothing changes nothing", "full-cut": "cutting everything gives the corrupted run"}[
                    name
                ],
            )
            for name, value in cuts.noise().items()
        ),
    ]
    return (
        *(
            Control(
                name=name,
                passed=value <= limit,
                observed=computed(f"{name}.error", value, "ratio", n_groups, f"Largest error over the pairs: {words}."),
                expected=f"{words}: error at most {limit:g}",
            )
            for name, value, limit, words in exact
        ),
        _bound(
            "behaviour-present",
            shown,
            isinstance(shown, Measured) and shown.value >= MIN_SHOWN,
            f"at least {MIN_SHOWN:.0%} of the pairs have the gap",
        ),
        _bound(
            "random-graphs",
            computed("random_graphs.p", p, "p", n_random, "Share of random graphs that are as faithful."),
            p <= ALPHA,
            f"p <= {ALPHA} over {n_random} graphs",
        ),
        _bound("mean-ablation", mean, above(mean, 0.5), "faithful under the other ablation too: interval above 0.5"),
        _bound(
            "error-share",
            error,
            isinstance(error, Measured) and error.interval.high <= max_error_share,
            f"interval below {max_error_share:g}",
        ),
        _bound("stability", jaccard, above(jaccard, min_jaccard), f"interval above {min_jaccard:g}"),
    )


def _bound(name: str, observed: Measurement, passed: bool, expected: str) -> Control:
    return Control(name=name, passed=passed, observed=observed, expected=expected, fatal=False)


def _mean(values: NDArray[np.float64], held: Held) -> float:
    """Mean over held-out groups, each counting once."""
    groups = np.asarray(held.groups)[held.rows]
    kept = values[held.rows]
    return float(np.mean([kept[groups == group].mean() for group in dict.fromkeys(groups.tolist())]))


def above(measurement: Measurement, bar: float) -> bool:
    """Whether the low end reaches the bar."""
    return isinstance(measurement, Measured) and measurement.interval.low >= bar


def properties(found: Mapping[str, Measurement], controls: Sequence[Control], *, bar: float, agree: bool) -> tuple[Property, ...]:
    """What was shown; nothing if a fatal control failed."""
    if any(control.fatal and not control.passed for control in controls):
        return ()
    passed = {control.name for control in controls if control.passed}
    shown: dict[Property, bool] = {
        "intervention": True,
        "necessity": above(found["destroyed"], bar),
        "sufficiency": above(found["faithfulness"], bar) and "random-graphs" in passed,
        "consistency": "stability" in passed and agree,
        "held-out": True,
        "out-of-distribution": above(found["faithfulness.ood"], bar),
        "random-baseline": "random-graphs" in passed,
        "two-ablations": above(found["faithfulness.mean_ablation"], bar),
    }
    return tuple(name for name, holds in shown.items() if holds)

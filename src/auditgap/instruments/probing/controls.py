"""What a probe's AUROC must be held against before it means anything. Each control answers one "but what if".

What if the test rows were not new (`no_leakage`)? If searching wide enough always finds something (`search_null`)? If any
direction would do (`random_direction`)? If any label could be read (`control_task`, `memorised`)? If it holds only on this kind
of text (`out_of_distribution`)? What needs no trained model is in `baselines.py`.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from auditgap.data import Split
from auditgap.instruments.probing.fits import Method, fit
from auditgap.instruments.probing.probe import Fold, Probe, Search, group_labels, random_direction_aurocs
from auditgap.instruments.probing.tokens import Tokens
from auditgap.records import Control, Interval, Measured, Measurement, NotMeasured
from auditgap.stats import auroc, auroc_interval, cluster_bootstrap, group_rate, max_statistic_p

__all__ = [
    "ALPHA",
    "Folds",
    "area_of",
    "beats_null",
    "control_task",
    "memorised",
    "no_leakage",
    "out_of_distribution",
    "random_direction",
    "search_null",
]

Folds = Mapping[Split, Fold]
ALPHA = 0.05
N_CONTROL_TASKS = 20
N_RANDOM_DRAWS = 99
MIN_SEEN_GROUPS = 4


def area_of(name: str, scores: Float[np.ndarray, " row"], fold: Fold, *, n_resamples: int, seed: int, about: str) -> Measured:
    """AUROC of a score on a split, with its interval over groups."""
    return Measured(
        name=name,
        value=auroc(scores, fold.labels),
        unit="auroc",
        n=len(set(fold.groups)),
        interval=auroc_interval(scores, fold.labels, fold.groups, n_resamples=n_resamples, seed=seed),
        about=f"Area under the ROC curve, {about}: 0.5 is chance, 1 is perfect.",
    )


def no_leakage(folds: Folds) -> Control:
    """Groups and prompts that occur in more than one split."""
    leaked = float(_shared([fold.groups for fold in folds.values()]) + _shared([fold.texts for fold in folds.values()]))
    return Control(
        name="no-leakage",
        passed=leaked == 0,
        observed=Measured(
            name="leaked",
            value=leaked,
            unit="count",
            n=sum(len(set(fold.groups)) for fold in folds.values()),
            interval=Interval.exact(leaked),
            about="Groups and prompts that occur in more than one split.",
        ),
        expected="0",
    )


def _shared(parts: Sequence[Sequence[str]]) -> int:
    items = [item for part in parts for item in set(part)]
    return len(items) - len(set(items))


def search_null(found: Search) -> Control:
    """How often a search this wide finds as much where there is nothing."""
    about = "Share of relabellings by group under which the whole search (every place and strength) does as well on `val`."
    return beats_null("shuffled-label-null", float(found.val_aurocs.max()), found.null_maxima, about=about)


def beats_null(name: str, best: float, null_maxima: Float[np.ndarray, " null"], *, about: str) -> Control:
    """Is the best of a search better than the best of the same search on null data?"""
    p = max_statistic_p(best, null_maxima)
    observed = Measured(name="search.p", value=p, unit="p", n=len(null_maxima), interval=Interval.exact(p), about=about)
    return Control(name=name, passed=p <= ALPHA, observed=observed, expected=f"max-statistic p <= {ALPHA:g}", fatal=False)


def random_direction(folds: Folds, area: float, *, n_per_layer: int, seed: int) -> Control:
    """Does fitting matter, or would the best of as many random directions do?"""
    train, val, test = folds["train"], folds["val"], folds["test"]
    areas = random_direction_aurocs(train, val, test, n_per_layer=n_per_layer, n_draws=N_RANDOM_DRAWS, seed=seed)
    p = max_statistic_p(area, areas)
    low, high = np.quantile(areas, [0.025, 0.975])
    return Control(
        name="random-direction",
        passed=p <= ALPHA,
        observed=Measured(
            name="random_direction.auroc",
            value=float(np.median(areas)),
            unit="auroc",
            n=N_RANDOM_DRAWS,
            interval=Interval(low=float(low), high=float(high), level=0.95, method="monte-carlo"),
            about=f"On `test`, best of {n_per_layer * len(train.features)} random directions by `val`; median of the draws.",
        ),
        expected=f"the probe beats all but {ALPHA:.0%} of the draws (p = {p:.2g})",
        fatal=False,
    )


def control_task(
    folds: Folds, probe: Probe, correct: Float[np.ndarray, " row"], *, method: Method, n_resamples: int, seed: int
) -> Control:
    """Selectivity: accuracy minus that of the same fit on a label that means nothing, on the same held-out groups."""
    train, test, rng = folds["train"], folds["test"], np.random.default_rng([seed, 2])
    fitted, scored = (group_labels(fold.groups, n_labellings=N_CONTROL_TASKS, rng=rng) for fold in (train, test))
    read = (train.at(probe.layer), test.at(probe.layer))
    gain = correct - _hits(*read, fitted, scored, method=method, strength=probe.strength).mean(axis=0)
    selectivity = Measured(
        name="selectivity",
        value=float(gain.mean()),
        unit="rate",
        n=len(set(test.groups)),
        interval=cluster_bootstrap(lambda rows: float(gain[rows].mean()), test.groups, n_resamples=n_resamples, seed=seed),
        about=f"Accuracy minus accuracy on a random label fixed for each group (mean of {N_CONTROL_TASKS}), on held-out groups.",
    )
    return Control(
        name="control-task",
        passed=selectivity.interval.low > 0,
        observed=selectivity,
        expected="95 % interval above 0",
        fatal=False,
    )


def memorised(train: Fold, probe: Probe, *, method: Method, seed: int) -> Measurement:
    """How well the same fit reads a label that means nothing on new rows of groups that it has seen: its power to memorise.

    The control task as Hewitt and Liang score it. Near 1, accuracy on seen groups says nothing: only held-out groups count.
    """
    name, rng = "control_accuracy.seen_groups", np.random.default_rng([seed, 3])
    groups = np.asarray(train.groups)
    members = [np.flatnonzero(groups == group) for group in dict.fromkeys(train.groups)]
    held = np.array([rng.choice(rows) for rows in members if len(rows) > 1], dtype=np.intp)
    if len(held) < MIN_SEEN_GROUPS:
        return NotMeasured(
            name=name, reason=f"{len(held)} groups of `train` have more than one row, {MIN_SEEN_GROUPS} are needed"
        )
    kept = np.setdiff1d(np.arange(len(groups)), held)
    labels = group_labels(train.groups, n_labellings=N_CONTROL_TASKS, rng=rng)
    read = (train.take(kept).at(probe.layer), train.take(held).at(probe.layer))
    hits = _hits(*read, labels[:, kept], labels[:, held], method=method, strength=probe.strength)
    rate = group_rate(hits.mean(axis=0), groups[held].tolist())
    return Measured(
        name=name,
        value=rate.value,
        unit="rate",
        n=rate.n_groups,
        interval=rate.interval,
        about="Accuracy on a random label fixed for each group, on new rows of groups seen in fitting: the power to memorise.",
    )


def _hits(
    fitted_on: Float[np.ndarray, "row d"] | Tokens,
    scored_on: Float[np.ndarray, "held d"] | Tokens,
    fitted: Int[np.ndarray, "labelling row"],
    scored: Int[np.ndarray, "labelling held"],
    *,
    method: Method,
    strength: float,
) -> Float[np.ndarray, "labelling held"]:
    """1 where the probe of a labelling is right."""
    scores = fit(fitted_on, fitted, method=method, strengths=[strength]).scores(scored_on)[0]
    return ((scores > 0) == scored).astype(np.float64)


def out_of_distribution(probe: Probe, ood: Fold, *, min_auroc: float, n_resamples: int, seed: int) -> Control:
    """Does the chosen probe read another kind of text as well?"""
    area: Measurement = NotMeasured(name="auroc.ood", reason="split 'ood' does not hold two groups and both classes")
    if len(np.unique(ood.labels)) == 2 and len(set(ood.groups)) > 1:
        area = area_of("auroc.ood", probe.scores(ood), ood, n_resamples=n_resamples, seed=seed, about="on `ood`")
    return Control(
        name="out-of-distribution",
        passed=isinstance(area, Measured) and area.interval.low >= min_auroc,
        observed=area,
        expected=f"low end of the 95 % interval >= {min_auroc:g}",
        fatal=False,
    )

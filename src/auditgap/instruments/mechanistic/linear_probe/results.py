"""The numbers on `test` beside the AUROC, and the sentence that sums them up."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from auditgap.errors import CannotMeasure
from auditgap.instruments.probing.controls import ALPHA, Folds
from auditgap.instruments.probing.fits import Method
from auditgap.instruments.probing.probe import Fold, Probe, search
from auditgap.records import Control, Interval, Measured, Measurement, NotMeasured, Property, Sample, Verdict
from auditgap.stats import (
    auroc,
    auroc_interval,
    cluster_bootstrap,
    delong_interval,
    flip_rate,
    group_rate,
    threshold_at_fpr,
    tpr_at_fpr,
    zero_event_upper_bound,
)

__all__ = ["accuracy", "chosen", "delong", "flips", "judge", "proven", "samples", "summarise", "tpr", "value_of"]

N_SAMPLES = 6
PROVES: dict[str, Property] = {
    "no-leakage": "held-out",
    "shuffled-label-null": "search-null",
    "random-direction": "random-baseline",
    "control-task": "control-task",
    "out-of-distribution": "out-of-distribution",
}
PROBES: dict[Method, str] = {
    "logistic": "A logistic probe",
    "difference-in-means": "A difference-in-means probe",
    "lda": "An LDA probe",
    "attention-pooled": "An attention-pooled probe",
}
LINEAR: tuple[Method, ...] = ("logistic", "difference-in-means", "lda")
RIVALS = {
    "text-only": "a classifier of the text alone",
    "untrained-model": "the untrained model",
    "random-features": "random features of the tokens",
}


def judge(interval: Interval, *, p: float, min_auroc: float) -> Verdict:
    """Supported if the low end reaches `min_auroc` and the search beats its null; refuted if the high end stays below it."""
    if interval.low >= min_auroc and p <= ALPHA:
        return "supported"
    return "refuted" if interval.high < min_auroc else "inconclusive"


def delong(scores: Float[np.ndarray, " row"], test: Fold) -> Measurement:
    """The AUROC with DeLong's interval, which holds for independent rows only."""
    name, n_groups = "auroc.delong", len(set(test.groups))
    if n_groups < len(test.groups):
        reason = f"{len(test.groups)} rows of `test` make {n_groups} groups; DeLong's interval takes independent rows"
        return NotMeasured(name=name, reason=reason)
    return Measured(
        name=name,
        value=auroc(scores, test.labels),
        unit="auroc",
        n=n_groups,
        interval=delong_interval(scores, test.labels),
        about="The AUROC on `test` again, with DeLong's interval in place of resampling.",
    )


def tpr(scores: Float[np.ndarray, " row"], test: Fold, *, max_fpr: float, n_resamples: int, seed: int) -> Measurement:
    """Share of positives caught at a false-positive rate on `test` of at most `max_fpr`."""
    name, positive = f"tpr_at_fpr.{max_fpr:g}", test.labels == 1
    groups = np.asarray(test.groups)
    n_negatives = len(np.unique(groups[~positive]))
    if n_negatives < 1 / max_fpr:
        return NotMeasured(
            name=name,
            reason=f"{n_negatives} groups of negatives, a threshold at {max_fpr:.0%} takes {1 / max_fpr:.0f}; "
            f"no alarm on {n_negatives} would still allow {zero_event_upper_bound(n_negatives):.1%}",
        )
    hits = scores[positive] > threshold_at_fpr(scores[~positive], max_fpr=max_fpr)
    rate = group_rate(hits, groups[positive].tolist())
    resampled = cluster_bootstrap(
        lambda rows: tpr_at_fpr(scores[rows], test.labels[rows], max_fpr=max_fpr), groups, n_resamples=n_resamples, seed=seed
    )
    return Measured(
        name=name,
        value=rate.value,
        unit="rate",
        n=rate.n_groups,
        interval=Interval(
            low=min(rate.interval.low, resampled.low),
            high=max(rate.interval.high, resampled.high),
            level=resampled.level,
            method="cluster-bootstrap+clopper-pearson",
        ),
        about=f"Share of positives above a threshold that at most {max_fpr:.0%} of the negatives of `test` exceed.",
    )


def accuracy(correct: Float[np.ndarray, " row"], test: Fold) -> Measured:
    """Share of `test` on the right side."""
    rate = group_rate(correct, test.groups)
    return Measured(
        name="accuracy",
        value=rate.value,
        unit="rate",
        n=rate.n_groups,
        interval=rate.interval,
        about="Share of `test` on the right side of the probe's boundary; each group counts once.",
    )


def chosen(probe: Probe, val: Fold, layer: int, position: str, *, n_places: int) -> Measured:
    """The layer that `val` chose."""
    return Measured(
        name="layer",
        value=float(layer),
        unit="layer",
        n=len(set(val.groups)),
        interval=Interval.exact(float(layer)),
        about=f"Chosen on `val` among {n_places} places, with position {position} and strength {probe.strength:g}.",
    )


def flips(folds: Folds, *, method: Method, strengths: Sequence[float], min_auroc: float, n_resamples: int, seed: int) -> Measured:
    """Whether another method, or features left unscaled, would have led to another conclusion."""
    test, conclusions = folds["test"], {}
    for other, standardise in itertools.product(dict.fromkeys((*LINEAR, method)), (True, False)):
        run = search(folds["train"], folds["val"], method=other, strengths=strengths, standardise=standardise, seed=seed)
        interval = auroc_interval(run.probe.scores(test), test.labels, test.groups, n_resamples=n_resamples, seed=seed)
        conclusions[f"{other} {'scaled' if standardise else 'raw'}"] = interval.low >= min_auroc
    return flip_rate(conclusions)


def proven(controls: Sequence[Control]) -> tuple[Property, ...]:
    """What the controls that passed show the evidence to have."""
    return tuple(PROVES[control.name] for control in controls if control.passed and control.name in PROVES)


def samples(scores: Float[np.ndarray, " row"], test: Fold, classes: tuple[str, str], *, seed: int) -> tuple[Sample, ...]:
    """Some prompts of `test`, drawn by the seed, and what the probe says of them."""
    drawn = np.random.default_rng(seed).choice(len(scores), size=min(N_SAMPLES, len(scores)), replace=False)
    return tuple(
        Sample(
            prompt=test.texts[i],
            output=f"probe score {scores[i]:+.2f}: {classes[int(scores[i] > 0)]}",
            note=f"label: {classes[test.labels[i]]}",
        )
        for i in sorted(map(int, drawn))
    )


def summarise(
    method: Method, site: str, position: str, classes: tuple[str, str], area: Measured, controls: Sequence[Control]
) -> str:
    """The result in a sentence: what was read and how well, and which baselines do as well."""
    where = {"last": "", "every": " over every token"}.get(position, f" (position {position})")
    p = next(value_of(control) for control in controls if control.name == "shuffled-label-null")
    return (
        f"{PROBES[method]} for {classes[1]} against {classes[0]} at {site}{where} reaches AUROC {area.value:.2f} "
        f"(95 % {area.interval.low:.2f} to {area.interval.high:.2f}) on {area.n} held-out groups, "
        f"search-wide p = {p:.2g}; {_against_rivals(controls)}."
    )


def _against_rivals(controls: Sequence[Control]) -> str:
    ran = [control for control in controls if control.name in RIVALS and isinstance(control.observed, Measured)]
    named = {
        passed: [f"{RIVALS[control.name]} ({value_of(control):.2f})" for control in ran if control.passed is passed]
        for passed in (True, False)
    }
    clauses = [f"it beats {_listed(named[True], 'and')}"] if named[True] else []
    if named[False]:
        clauses.append(f"it does not beat {_listed(named[False], 'or')}, so it may show nothing that the model has learned")
    return "; ".join(clauses)


def _listed(items: Sequence[str], word: str) -> str:
    return f"{', '.join(items[:-1])} {word} {items[-1]}" if len(items) > 1 else items[0]


def value_of(control: Control) -> float:
    """The number behind a control.

    Raises:
        CannotMeasure: there is none.
    """
    if isinstance(control.observed, NotMeasured):
        raise CannotMeasure(f"control '{control.name}': {control.observed.reason}")
    return control.observed.value

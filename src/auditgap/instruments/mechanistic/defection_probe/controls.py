"""What a separation along the generic direction must be held against before it means anything.

What if the direction does not even separate its own kind (`held_out_pairs`), or only tells yes from no (`answer_word_swap`)? If
irrelevant questions would have done as well (`irrelevant_pairs`)? If the state is so salient that it shows along any direction
(`random_directions`), or along whatever these questions differ in (`half_turned`)?
"""

import numpy as np
from jaxtyping import Bool, Float

from auditgap.instruments.mechanistic.defection_probe.pairs import Pairs, consistency, directions
from auditgap.instruments.mechanistic.defection_probe.scoring import layer_probes, shifts
from auditgap.instruments.probing.controls import ALPHA, Folds, area_of
from auditgap.instruments.probing.fits import moments
from auditgap.instruments.probing.probe import Search
from auditgap.records import Control, Interval, Measured, Measurement, NotMeasured
from auditgap.stats import clopper_pearson, cluster_bootstrap, max_statistic_p

__all__ = [
    "answer_word_swap",
    "half_turned",
    "held_out_pairs",
    "irrelevant_pairs",
    "random_directions",
    "right_way",
    "shifts_more",
]

MIN_SWAPPED = 8  # pairs of each kind, fitted and held out


def right_way(name: str, hits: Bool[np.ndarray, " pair"], *, about: str, n_tests: int = 1) -> Measured:
    """Share of pairs that lie the right way, with its exact interval, which is wider if it is one of several."""
    interval = clopper_pearson(int(hits.sum()), len(hits), level=1 - ALPHA / n_tests)
    return Measured(name=name, value=float(hits.mean()), unit="rate", n=len(hits), interval=interval, about=about)


def held_out_pairs(shares: list[Measured]) -> Control:
    """Is there a layer at which the direction separates pairs that it was not fitted on?"""
    best = max(shares, key=lambda share: share.interval.low)
    return Control(
        name="held-out-pairs",
        passed=best.interval.low > 0.5,
        observed=best,
        expected=f"low end of the {1 - ALPHA / len(shares):.2%} interval (one of {len(shares)} layers) above 0.5",
    )


def answer_word_swap(pairs: Pairs, layer: int) -> Control:
    """Fitted on pairs that admit with one word, does the direction separate pairs that admit with the other?"""
    halves = [pairs.swapped, ~pairs.swapped]
    observed: Measurement = NotMeasured(
        name="sign_consistency.swapped", reason="the admission is nearly always the same word, so it cannot be told from the word"
    )
    if min(int((half & part).sum()) for half in halves for part in (pairs.held_out, ~pairs.held_out)) >= MIN_SWAPPED:
        hits = np.concatenate(
            [
                consistency(pairs, directions(pairs, fitted=~pairs.held_out & one)[0], pairs.held_out & other)[layer]
                for one, other in (halves, halves[::-1])
            ]
        )
        observed = right_way(
            "sign_consistency.swapped",
            hits,
            about="Share of held-out pairs, admitting with the other word (no for yes) than those fitted, that lie right.",
        )
    return Control(
        name="answer-word-swap",
        passed=isinstance(observed, Measured) and observed.interval.low > 0.5,
        observed=observed,
        expected="low end of the 95 % interval above 0.5; near 0, the direction is that of a word",
        fatal=False,
    )


def irrelevant_pairs(control: Pairs, folds: Folds, scores: Float[np.ndarray, " row"], *, n_resamples: int, seed: int) -> Control:
    """Does the direction shift the prompts further than one made in the same way from irrelevant questions?"""
    direction, test = directions(control)[0], folds["test"]
    other = layer_probes(direction, folds)[int(shifts(direction, folds).argmax())].scores(test)
    further = scores - other

    def gain(rows: np.ndarray) -> float:
        one, zero = (further[rows[test.labels[rows] == label]] for label in (1, 0))
        return float(one.mean() - zero.mean()) if len(one) and len(zero) else np.nan

    interval = cluster_bootstrap(gain, test.groups, n_resamples=n_resamples, seed=seed)
    return Control(
        name="irrelevant-pairs",
        passed=interval.low > 0,
        observed=area_of(
            "auroc.irrelevant",
            other,
            test,
            n_resamples=n_resamples,
            seed=seed,
            about="along the direction of irrelevant questions",
        ),
        expected=f"shift less, 95 % interval of the difference above 0 (it is {interval.low:+.1f} to {interval.high:+.1f} sd)",
        fatal=False,
    )


def random_directions(pairs: Pairs, *, n_draws: int, seed: int) -> Float[np.ndarray, "draw layer d"]:
    """Random directions in the z-scored coordinates in which the real one is a difference of means."""
    fitted = np.concatenate([pairs.admits[:, ~pairs.held_out], pairs.denies[:, ~pairs.held_out]], axis=1)
    drawn = np.random.default_rng([seed, 3]).standard_normal((n_draws, len(fitted), fitted.shape[-1]))
    return drawn / np.stack([moments(layer)[1] for layer in fitted])


def half_turned(pairs: Pairs, *, n_draws: int, seed: int) -> Float[np.ndarray, "draw layer d"]:
    """Directions of the same pairs when half of them are turned, so that what admissions share cancels.

    Half of each kind (admitting with yes, with no), so that the words cancel too: a coin for each pair would leave some of both.
    """
    rng = np.random.default_rng([seed, 4])
    kinds = [np.flatnonzero(~pairs.held_out & kind) for kind in (pairs.swapped, ~pairs.swapped)]
    signs = np.ones((n_draws, len(pairs.swapped)))
    for row in signs:
        for members in kinds:
            row[rng.permutation(members)[: len(members) // 2]] = -1.0
    return directions(pairs, signs=signs)


def shifts_more(
    name: str,
    found: Search,
    drawn: Float[np.ndarray, "draw layer d"],
    valid: Bool[np.ndarray, " layer"],
    folds: Folds,
    *,
    about: str,
) -> Control:
    """Does the direction shift the prompts under test further than the best layer of directions that mean nothing?"""
    maxima = shifts(drawn, folds)[:, valid].max(axis=1)
    observed = float(found.val_aurocs.max())
    p, (low, high) = max_statistic_p(observed, maxima), np.quantile(maxima, [0.025, 0.975])
    return Control(
        name=name,
        passed=p <= ALPHA,
        observed=Measured(
            name=f"shift.{name.replace('-', '_')}",
            value=float(np.median(maxima)),
            unit="sd",
            n=len(maxima),
            interval=Interval(low=float(low), high=float(high), level=0.95, method="monte-carlo"),
            about=f"Shift on `val` at the best valid layer along {about}, in standard deviations of ordinary prompts; median.",
        ),
        expected=f"the direction ({observed:.1f}) beyond all but {ALPHA:.0%} of the draws (p = {p:.2g})",
        fatal=False,
    )

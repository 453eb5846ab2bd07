"""What a separation along the generic direction must be held against before it means anything.

What if the direction does not even separate its own kind (`held_out_pairs`), or only tells yes from no (`answer_word_swap`)? If
irrelevant questions would have done as well (`irrelevant_pairs`), or the same pairs with answers at random (`shuffled_pairs`)?
"""

import numpy as np
from jaxtyping import Bool, Float

from auditgap.instruments.mechanistic.defection_probe.pairs import Pairs, consistency, directions
from auditgap.instruments.mechanistic.defection_probe.scoring import layer_aurocs
from auditgap.instruments.mechanistic.probe_controls import ALPHA, area_of
from auditgap.instruments.mechanistic.probing import Fold
from auditgap.records import Control, Interval, Measured, Measurement, NotMeasured
from auditgap.stats import auroc, clopper_pearson, cluster_bootstrap, max_statistic_p

__all__ = ["answer_word_swap", "held_out_pairs", "irrelevant_pairs", "right_way", "shuffled_pairs"]

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


def irrelevant_pairs(
    control: Pairs, val: Fold, test: Fold, scores: Float[np.ndarray, " row"], *, n_resamples: int, seed: int
) -> Control:
    """Does the direction do better than one made in the same way from questions that have nothing to do with it?"""
    direction = directions(control)[0]
    layer = int(layer_aurocs(direction, val).argmax())
    other = test.features[layer].astype(np.float64) @ direction[layer]
    gain = cluster_bootstrap(
        lambda rows: auroc(scores[rows], test.labels[rows]) - auroc(other[rows], test.labels[rows]),
        test.groups,
        n_resamples=n_resamples,
        seed=seed,
    )
    return Control(
        name="irrelevant-pairs",
        passed=gain.low > 0,
        observed=area_of(
            "auroc.irrelevant",
            other,
            test,
            n_resamples=n_resamples,
            seed=seed,
            about="along wrong minus right answers to quiz questions",
        ),
        expected=f"probe above it, 95 % interval of the difference above 0 (it is {gain.low:+.2f} to {gain.high:+.2f})",
        fatal=False,
    )


def shuffled_pairs(
    pairs: Pairs, val: Fold, valid: Bool[np.ndarray, " layer"], observed: float, *, n_permutations: int, seed: int
) -> Control:
    """How often do the same pairs do as well if in each of them a coin decides which answer admits?"""
    signs = np.random.default_rng([seed, 4]).choice((1.0, -1.0), size=(n_permutations, len(pairs.swapped)))
    maxima = [layer_aurocs(direction, val)[valid].max() for direction in directions(pairs, signs=signs)]
    p = max_statistic_p(observed, maxima)
    return Control(
        name="shuffled-pairs",
        passed=p <= ALPHA,
        observed=Measured(
            name="pairs.p",
            value=p,
            unit="p",
            n=n_permutations,
            interval=Interval.exact(p),
            about="Share of random turnings of the pairs under which the best layer separates `val` as well.",
        ),
        expected=f"max-statistic p <= {ALPHA:g}",
        fatal=False,
    )

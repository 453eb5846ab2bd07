"""From measurements to controls, properties, the verdict and the sentence that says it."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from auditgap.data import as_text
from auditgap.instruments.directions.search import Place
from auditgap.instruments.directions.shares import Shares
from auditgap.instruments.directions.trial import Trial
from auditgap.models import Model
from auditgap.records import Control, Figure, Measured, Measurement, NotMeasured, Property, Result, Sample, Verdict

__all__ = ["behaviour_stays", "controls", "nothing_survived", "properties", "samples", "summary", "verdict"]

ALPHA = 0.05
N_SAMPLES = 4
N_REASONS = 12
NULLS = {"random-direction", "covariance-direction", "top-component", "shuffled-label"}
OBSERVED = {
    "ablation-post-condition": "residual_after_ablation",
    "behaviour-gap": "difference",
    "random-direction": "p.random",
    "covariance-direction": "p.covariance",
    "top-component": "advantage.top_component",
    "shuffled-label": "p.shuffled",
    "side-effects": "kl_nats.ablation",
    "consistency": "consistent_groups",
}
"""The measurement that each control looks at."""
MISSING = (
    "share_removed",
    "share_induced",
    "share_bypassed",
    "share_removed.ood",
    "share_induced.ood",
    "share_bypassed.ood",
    "rate.label1.ablated",
    "rate.label1.subtracted",
    "rate.label0.added",
    "effect.ablation",
    "effect.addition",
    "specificity",
    "kl_nats.ablation",
    "changed_answers",
    "cross_entropy.base",
    "cross_entropy.change",
    "p.random",
    "p.covariance",
    "p.shuffled",
    "advantage.top_component",
    "residual_after_ablation",
    "weight_form_difference",
    "consistent_groups",
    "reliability",
    "chosen_again",
    "layer",
    "position",
)
"""What cannot be measured without a direction."""


def controls(measured: Mapping[str, Measurement], *, max_residual: float, max_kl_nats: float) -> tuple[Control, ...]:
    """Every control of the card; one whose measurement is missing has failed."""
    significant = f"p <= {ALPHA:g}"
    bars = {
        "ablation-post-condition": (lambda m: m.value <= max_residual, f"at most {max_residual:g}"),
        "behaviour-gap": (lambda m: m.interval.low > 0, "label 1 scores above label 0: interval above 0"),
        "random-direction": (lambda m: m.value <= ALPHA, f"{significant} against random directions of the same norm"),
        "covariance-direction": (lambda m: m.value <= ALPHA, f"{significant} against directions that vary like the prompts"),
        "top-component": (lambda m: m.interval.low > 0, "does more than the largest component: interval above 0"),
        "shuffled-label": (lambda m: m.value <= ALPHA, f"{significant} against the whole search with shuffled labels"),
        "side-effects": (lambda m: m.interval.high <= max_kl_nats, f"interval at most {max_kl_nats:g} nats"),
        "consistency": (lambda m: m.interval.low > 0.5, "works on most groups by itself: interval above 0.5"),
    }

    def control(name: str) -> Control:
        observed, (passes, expected) = measured[OBSERVED[name]], bars[name]
        passed = isinstance(observed, Measured) and passes(observed)
        fatal = name == "ablation-post-condition" and isinstance(observed, Measured)
        return Control(name=name, passed=passed, observed=observed, expected=expected, fatal=fatal)

    return tuple(map(control, OBSERVED))


def behaviour_stays(measured: Mapping[str, Measurement]) -> bool:
    """Whether most label-1 prompts prefer the answers ablated as unedited: the difference shrank, the behaviour did not go."""
    before, after = (measured[f"rate.label1.{state}"] for state in ("base", "ablated"))
    return all(isinstance(rate, Measured) and rate.value > 0.5 for rate in (before, after))


def verdict(shares: Shares, min_share: float, passed: set[str], *, stays: bool) -> Verdict:
    """Refuted only if ablation fails by either measure: a behaviour that ablation removes is brittle, enough or not.

    A behaviour that `stays` does not rest on the direction, whatever share of the logits did.
    """
    if "ablation-post-condition" not in passed:
        return "invalid"
    if carries(shares, min_share) and passed >= NULLS and not stays:
        return "supported"
    return "refuted" if _misses(shares.removed, min_share) and _misses(shares.bypassed, min_share) else "inconclusive"


def carries(shares: Shares, min_share: float) -> bool:
    """Whether the low ends of what ablation removes and of what addition brings about reach `min_share`."""
    return _reaches(shares.removed, min_share) and _reaches(shares.induced, min_share)


def properties(shares: Shares, shifted: Shares, min_share: float, passed: set[str], *, agree: bool) -> tuple[Property, ...]:
    """What was shown; nothing if the ablation did not hold. `agree`: the other surviving candidates conclude the same."""
    if "ablation-post-condition" not in passed:
        return ()
    told_apart = passed >= NULLS - {"shuffled-label"}
    shown: dict[Property, bool] = {
        "intervention": True,
        "necessity": told_apart and _reaches(shares.removed, min_share),
        "sufficiency": told_apart and _reaches(shares.induced, min_share),
        "specificity": told_apart and "side-effects" in passed,
        "consistency": "consistency" in passed and agree,
        "held-out": True,
        "out-of-distribution": carries(shifted, min_share),
        "random-baseline": told_apart,
        "search-null": "shuffled-label" in passed,
    }
    return tuple(name for name, holds in shown.items() if holds)


def summary(
    verdict: Verdict,
    place: Place,
    measured: Mapping[str, Measurement],
    classes: tuple[str, str],
    *,
    n_candidates: int,
    min_share: float,
    failed: Sequence[str],
) -> str:
    """How much of the behaviour rests on one direction, in words a person can quote."""
    zero, one = classes
    removed, induced, changed = (_percent(measured[name]) for name in ("share_removed", "share_induced", "changed_answers"))
    before, ablated, subtracted = (
        _percent(measured[f"rate.label1.{state}"], interval=False) for state in ("base", "ablated", "subtracted")
    )
    finding = {
        "supported": "The behaviour is brittle: it rests on one direction",
        "refuted": f"No direction was found on which {min_share:.0%} of the behaviour rests",
        "inconclusive": "How much of the behaviour rests on one direction stays open",
        "invalid": "No valid test, for something wrote the direction back while it was ablated",
    }[verdict]
    gap, cost = measured["difference"], measured["cross_entropy.change"]
    nulls = [m.value for name, m in measured.items() if name.startswith("p.") and isinstance(m, Measured)]
    parts = [
        f"{finding}. Of the difference in the next token between '{one}' and '{zero}' prompts {removed} is gone when the best of "
        f"{n_candidates} candidates ({place}) is ablated, and adding it brings about {induced} "
        f"({gap.n if isinstance(gap, Measured) else 0} held-out groups, largest p {max(nulls, default=1.0):.2g} against "
        f"directions that mean nothing)",
        f"{before} of '{one}' prompts prefer the answers, {ablated} with it ablated, {subtracted} with it subtracted",
        f"Ablation changes {changed} of the answers to '{zero}' prompts"
        + (f" and the cross-entropy of their text by {cost.value:+.2g} nats per token" if isinstance(cost, Measured) else ""),
    ]
    return ". ".join(parts + [f"Controls that failed: {', '.join(failed)}"] * bool(failed)) + "."


def nothing_survived(
    measured: tuple[Measured, Measurement],
    rejected: Mapping[Place, str],
    figures: tuple[Figure, ...],
    *,
    max_residual: float,
    max_kl_nats: float,
) -> Result:
    """The result where the rule dropped every candidate: the gap, what ablation alone does, and the reasons."""
    gap, bypassed = measured
    if len(rejected) <= N_REASONS:
        shown = "; ".join(f"{place}: {why}" for place, why in rejected.items())
    else:
        shown = "; ".join(f"{n} candidates: {why}" for why, n in Counter(rejected.values()).most_common())
    remaining = f" {_percent(bypassed)} of label-1 prompts prefer the answers with the most needed candidate ablated."
    reason = "no candidate passed the filter on val; the summary says why"
    missing: dict[str, Measurement] = {name: NotMeasured(name=name, reason=reason) for name in MISSING}
    return Result(
        measurements=(gap, bypassed, *missing.values()),
        controls=controls({**missing, "difference": gap}, max_residual=max_residual, max_kl_nats=max_kl_nats),
        verdict="inconclusive",
        summary=f"No direction could be tested, because no candidate passed the filter on val ({shown}).{remaining}",
        figures=figures,
    )


def samples(
    model: Model,
    trial: Trial,
    base: Float[Tensor, "prompt vocab"],
    ablated: Float[Tensor, "prompt vocab"],
    rng: np.random.Generator,
) -> tuple[Sample, ...]:
    """Random test prompts with the most likely next token before and under ablation."""
    drawn = rng.choice(len(trial.base), size=min(N_SAMPLES, len(trial.base)), replace=False)
    tokens = [[str(model.tokenizer.decode([int(logits[row].argmax())])) for logits in (base, ablated)] for row in drawn]
    return tuple(
        Sample(
            prompt=as_text(trial.rows.prompts[row]),
            output=f"{before!r} -> {after!r}",
            note=f"label {trial.rows.labels[row]}; most likely next token, unedited -> direction ablated",
        )
        for row, (before, after) in zip(drawn, tokens, strict=True)
    )


def _reaches(share: Measurement, min_share: float) -> bool:
    return isinstance(share, Measured) and share.interval.low >= min_share


def _misses(share: Measurement, min_share: float) -> bool:
    return isinstance(share, Measured) and share.interval.high < min_share


def _percent(share: Measurement, *, interval: bool = True) -> str:
    """A share in per cent, with its interval."""
    if isinstance(share, NotMeasured):
        return "an unknown share"
    bounds = f" [{share.interval.low:.0%}, {share.interval.high:.0%}]" if interval else ""
    return f"{share.value:.0%}{bounds}"

"""What the comparison of estimate and exact patching amounts to: controls, verdict, properties, the sentence to quote."""

from collections.abc import Mapping, Sequence

from auditgap.instruments.mechanistic.attribution_patching.agreement import random_ranking_p
from auditgap.instruments.mechanistic.attribution_patching.estimate import Method
from auditgap.instruments.patching.locus import computed
from auditgap.records import Control, Measured, Measurement, NotMeasured, Property, Verdict

__all__ = ["controls", "properties", "summary", "verdict"]

ALPHA = 0.05
MIN_SHOWN = 0.5  # share of pairs that must show the behaviour
MAX_NOISE = 1e-3  # of the gap, where a patch changes nothing
MAX_DISAGREEMENT = 0.01  # of the gap; float32 leaves about 1e-5
MAX_INCOMPLETE = 0.1


def controls(
    measured: Mapping[str, Measurement], *, own: float, difference: float | None, n_nodes: int, top_k: int, min_effect: float
) -> tuple[Control, ...]:
    """What must hold before the numbers may be believed (the first two, fatal), and what bounds their reading."""
    shown, completeness, same, blind = (
        measured[name] for name in ("pairs.with_gap", "completeness", "recall.top_k", "missed.rate")
    )
    n = measured["nodes"].n if isinstance(measured["nodes"], Measured) else 0
    hits = round(same.value * top_k) if isinstance(same, Measured) else 0
    p = random_ranking_p(hits, k=top_k, n_nodes=n_nodes)
    whole = isinstance(completeness, Measured) and abs(completeness.value - 1) <= MAX_INCOMPLETE
    compared: Measurement = NotMeasured(name="sweep_minus_single", reason="queries and keys have no one-pass sweep")
    if difference is not None:
        compared = computed("sweep_minus_single", difference, "ratio", n, "Largest difference of any node and pair, of the gap.")
    about = "Chance that as many nodes drawn blindly hold as much of the true top_k."
    return (
        Control(
            name="identity-patch",
            passed=own <= MAX_NOISE,
            observed=computed("max_change", own, "ratio", n, "Largest effect of patching a found node with its own vector."),
            expected=f"no change: at most {MAX_NOISE:g} of the gap",
        ),
        Control(
            name="sweep-agreement",
            passed=difference is not None and difference <= MAX_DISAGREEMENT,
            observed=compared,
            expected=f"single patched runs agree with the sweep to {MAX_DISAGREEMENT:g} of the gap",
            fatal=difference is not None,
        ),
        Control(
            name="behaviour-present",
            passed=isinstance(shown, Measured) and shown.value >= MIN_SHOWN,
            observed=shown,
            expected=f"at least {MIN_SHOWN:.0%} of the pairs have the gap",
            fatal=False,
        ),
        Control(
            name="completeness",
            passed=whole,
            observed=completeness,
            expected=f"integrated gradients explain the gap: within {MAX_INCOMPLETE:g} of 1",
            fatal=False,
        ),
        Control(
            name="random-ranking",
            passed=p <= ALPHA,
            observed=computed("p.random_ranking", p, "p", n, about),
            expected=f"p <= {ALPHA} against nodes drawn blindly",
            fatal=False,
        ),
        Control(
            name="blind-sample",
            passed=isinstance(blind, Measured) and blind.value == 0,
            observed=blind,
            expected=f"none of the nodes drawn blindly and not found reaches {min_effect:g}",
            fatal=False,
        ),
    )


def verdict(measured: Mapping[str, Measurement], checks: Sequence[Control], *, min_effect: float) -> Verdict:
    """On the card's hypothesis."""
    failed = [control for control in checks if not control.passed]
    miss = measured["missed.effect"]
    if any(control.fatal for control in failed):
        return "invalid"
    if not isinstance(miss, Measured) or "behaviour-present" in {control.name for control in failed}:
        return "inconclusive"
    if miss.value >= min_effect:
        return "refuted"
    return "supported" if miss.interval.high < min_effect else "inconclusive"


def properties(checks: Sequence[Control], *, agree: bool) -> tuple[Property, ...]:
    """What the evidence was shown to have."""
    if any(control.fatal and not control.passed for control in checks):
        return ()
    passed = {control.name for control in checks if control.passed}
    shown: dict[Property, bool] = {
        "intervention": True,
        "consistency": agree,
        "held-out": True,
        "random-baseline": "random-ranking" in passed,
    }
    return tuple(name for name, holds in shown.items() if holds)


def summary(measured: Mapping[str, Measurement], *, n_nodes: int, method: Method, top_k: int) -> str:
    """What was found, what may have been missed, in one sentence."""
    miss, same = measured["missed.effect"], measured["recall.top_k"]
    missed = (
        f"outside of them the largest exact effect seen on held-out pairs was {miss.value:.1%} of the gap, and it is at most "
        f"{miss.interval.high:.1%} (one-sided 95 %, if effects add up on average)"
        if isinstance(miss, Measured)
        else f"what was missed is not known: {miss.reason}"
    )
    on_same = (
        f"; on the same pairs it ranks {same.value:.0%} [{same.interval.low:.0%}, {same.interval.high:.0%}] of the true top "
        f"{top_k} that high"
        if isinstance(same, Measured)
        else ""
    )
    return f"Of {n_nodes} nodes, {method} picked {top_k}; {missed}{on_same}."

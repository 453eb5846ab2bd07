"""What the numbers at the locus amount to: controls, verdict, properties."""

from collections.abc import Mapping, Sequence

from auditgap.instruments.patching.locus import computed
from auditgap.models import Model
from auditgap.records import Control, Measured, Measurement, Property, Verdict

__all__ = ["ABLATIONS", "MARGINS", "controls", "properties", "verdict"]

ALPHA = 0.05
MIN_SHOWN = 0.5  # share of pairs that must show the behaviour
MAX_NOISE_LOGITS = 1e-3  # where a patch changes nothing; 0 but where an architecture rounds (mixture of experts, resid_mid)
MAX_DISAGREEMENT = 0.01  # of the gap, between the sweep and single patched runs; float32 leaves about 1e-6
HALF_PRECISION = 32  # times more of both: bfloat16 has 8 binary digits
MARGINS = {
    "random-site": ("effect.denoising.max", "effect.random_site"),
    "random-site-noising": ("effect.noising", "effect.random_site.noising"),
    "unrelated-source": ("effect.denoising.max", "effect.unrelated_source"),
    "random-vector": ("effect.denoising.max", "effect.random_vector"),
}
"""Controls that compare the locus with something that should do less."""
ABLATIONS = ("resample", "mean", "zero")


def controls(
    measured: Mapping[str, Measurement],
    noise: Mapping[str, float],
    disagreement: float,
    margins: Mapping[str, Measurement],
    model: Model,
    *,
    min_effect: float,
    n_groups: int,
) -> tuple[Control, ...]:
    """What must hold before the effects may be believed (fatal), and what bounds their reading."""
    slack = 1 if model.hf.dtype.itemsize >= 4 else HALF_PRECISION
    shown, alone, same = (measured[name] for name in ("pairs.with_gap", "consistent_groups", "effect.same_answer_source"))
    off, on = measured["off_task.kl_nats"], measured["on_task.kl_nats"]
    return (
        *(
            Control(
                name=name,
                passed=value <= slack * MAX_NOISE_LOGITS,
                observed=computed(
                    "max_change", value, "logits", n_groups, "Largest change of any pair's answer, foil or total logit."
                ),
                expected=f"no change: at most {slack * MAX_NOISE_LOGITS:g} logits",
            )
            for name, value in noise.items()
        ),
        Control(
            name="sweep-agreement",
            passed=disagreement <= slack * MAX_DISAGREEMENT,
            observed=computed(
                "sweep_minus_single", disagreement, "ratio", n_groups, "Largest difference at the locus, of the gap."
            ),
            expected=f"single patched runs agree with the sweep to {slack * MAX_DISAGREEMENT:g} of the gap",
        ),
        _soft(
            "behaviour-present",
            isinstance(shown, Measured) and shown.value >= MIN_SHOWN,
            shown,
            f"at least {MIN_SHOWN:.0%} of the pairs have the gap",
        ),
        *(
            _soft(name, isinstance(p, Measured) and p.value <= ALPHA, p, f"p <= {ALPHA} {against}")
            for name, p, against in (
                ("search-null", measured["p.search"], "over all cells searched, signs flipped by group"),
                ("random-site-null", measured["p.random_site"], "against random sites of the same layer and kind"),
            )
        ),
        *(_soft(name, _low(margin) > 0, margin, "locus does more: interval above 0") for name, margin in margins.items()),
        _soft("same-answer-source", _low(same) > 0, same, "another pair's vector restores too: interval above 0"),
        *(
            _soft(f"{kind}-ablation", _low(effect) >= min_effect, effect, f"destroys too: interval at least {min_effect:g}")
            for kind in ABLATIONS
            for effect in (measured[f"effect.{kind}_ablation"],)
        ),
        _soft(
            "off-task",
            isinstance(off, Measured) and off.interval.high < _low(on),
            off,
            "unrelated prompts move less than the pairs: interval of the KL below that of on_task.kl_nats",
        ),
        _soft("consistency", _low(alone) > 0.5, alone, "most groups pass by themselves: interval above 0.5"),
    )


def verdict(measured: Mapping[str, Measurement], checks: Sequence[Control], *, min_effect: float) -> Verdict:
    """On the card's hypothesis."""
    failed = {control.name for control in checks if not control.passed}
    both = measured["effect.denoising.max"], measured["effect.noising"]
    if any(control.fatal for control in checks if not control.passed):
        return "invalid"
    if "behaviour-present" in failed:
        return "inconclusive"
    if all(_low(effect) >= min_effect for effect in both) and "search-null" not in failed:
        return "supported"
    if any(isinstance(effect, Measured) and effect.interval.high < min_effect for effect in both):
        return "refuted"
    return "inconclusive"


def properties(
    measured: Mapping[str, Measurement], checks: Sequence[Control], *, min_effect: float, agree: bool
) -> tuple[Property, ...]:
    """What the evidence was shown to have."""
    if any(control.fatal and not control.passed for control in checks):
        return ()
    passed = {control.name for control in checks if control.passed}
    shown: dict[Property, bool] = {
        "intervention": True,
        "necessity": _low(measured["effect.noising"]) >= min_effect and "random-site-noising" in passed,
        "sufficiency": _low(measured["effect.denoising.max"]) >= min_effect and "random-site" in passed,
        "specificity": {"random-site", "random-site-null", "unrelated-source", "off-task"} <= passed,
        "consistency": "consistency" in passed and agree,
        "held-out": True,
        "out-of-distribution": _low(measured["effect.denoising.ood"]) >= min_effect,
        "random-baseline": "random-vector" in passed,
        "two-ablations": bool({f"{kind}-ablation" for kind in ABLATIONS} & passed),
        "search-null": "search-null" in passed,
    }
    return tuple(name for name, holds in shown.items() if holds)


def _soft(name: str, passed: bool, observed: Measurement, expected: str) -> Control:
    return Control(name=name, passed=passed, observed=observed, expected=expected, fatal=False)


def _low(measurement: Measurement) -> float:
    """The low end of the interval; minus infinity where nothing was measured."""
    return measurement.interval.low if isinstance(measurement, Measured) else float("-inf")

"""From what erasing did to controls, properties and the verdict."""

from collections.abc import Mapping

from auditgap.data import Split
from auditgap.instruments.mechanistic.erasure.effects import number
from auditgap.instruments.mechanistic.erasure.place import OTHER_ABLATION
from auditgap.instruments.probing.controls import no_leakage
from auditgap.instruments.probing.probe import Fold
from auditgap.records import Control, Measured, Measurement, NotMeasured, Property, Verdict

__all__ = ["controls", "properties", "reaches", "verdict"]

ALPHA = 0.05
MAX_COEFFICIENT = 1e-4


def reaches(share: Measurement, min_share: float) -> bool:
    """Whether the low end of the share's interval reaches `min_share`."""
    return isinstance(share, Measured) and share.interval.low >= min_share


def controls(
    folds: Mapping[Split, Fold], measured: Mapping[str, Measurement], *, max_residual: float, max_kl_nats: float, n_shuffled: int
) -> tuple[Control, ...]:
    """Every control of the card."""
    left, coefficient, p = (
        number(measured[name]) for name in ("residual_after_erasure", "coefficient_after_erasure", "p.shuffled")
    )
    gap, before, after, kl = (
        number(measured[name]) for name in ("difference", "auroc.before", "auroc.erased", "kl_nats.other_tokens")
    )

    def control(name: str, passed: bool, observed: Measured, expected: str, *, fatal: bool = False) -> Control:
        return Control(name=name, passed=passed, observed=observed, expected=expected, fatal=fatal)

    return (
        no_leakage(dict(folds)),
        control("erasure-post-condition", left.value <= max_residual, left, f"at most {max_residual:g}", fatal=True),
        control("no-linear-probe", coefficient.value < MAX_COEFFICIENT, coefficient, f"below {MAX_COEFFICIENT:g}", fatal=True),
        control("behaviour-gap", gap.interval.low > 0, gap, "label 1 scores above label 0: interval above 0"),
        control("label-readable", before.interval.low > 0.5, before, "there is something to erase: interval above 0.5"),
        control("held-out-erasure", after.interval.low <= 0.5 <= after.interval.high, after, "chance, 0.5, within the interval"),
        control("shuffled-concept", p.value <= ALPHA, p, f"p <= {ALPHA:g} against {n_shuffled} shuffled concepts"),
        control("side-effects", kl.interval.high <= max_kl_nats, kl, f"interval at most {max_kl_nats:g} nats"),
    )


def verdict(share: Measurement, ran: tuple[Control, ...], min_share: float) -> Verdict:
    """Invalid if the erasure did not hold; decided only where there was a label to erase and a difference to take away."""
    failed = {control.name for control in ran if not control.passed}
    if any(control.fatal for control in ran if not control.passed):
        return "invalid"
    if "label-readable" in failed or isinstance(share, NotMeasured):
        return "inconclusive"
    if reaches(share, min_share) and "shuffled-concept" not in failed:
        return "supported"
    if share.interval.high < min_share and "held-out-erasure" not in failed:
        return "refuted"
    return "inconclusive"


def properties(
    share: Measurement, shifted: Measurement, ran: tuple[Control, ...], conclusions: Mapping[str, bool], min_share: float
) -> tuple[Property, ...]:
    """What was shown; nothing if a fatal control failed. `conclusions` are those of the other reasonable ways to erase."""
    if any(control.fatal and not control.passed for control in ran):
        return ()
    passed = {control.name for control in ran if control.passed}
    carries = reaches(share, min_share) and "shuffled-concept" in passed
    shown: dict[Property, bool] = {
        "intervention": True,
        "necessity": carries,
        "specificity": {"shuffled-concept", "side-effects"} <= passed,
        "held-out": True,
        "out-of-distribution": reaches(shifted, min_share),
        "random-baseline": "shuffled-concept" in passed,
        "two-ablations": carries and conclusions[OTHER_ABLATION],
    }
    return tuple(name for name, holds in shown.items() if holds)

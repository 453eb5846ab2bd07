"""The report's vocabulary: every closed choice of the records in words that a person outside the field can read."""

from typing import NamedTuple

from auditgap.records import Access, Axis, Comparator, Modality, Outcome, Realm, Support, Tier, Verdict

__all__ = [
    "AXIS",
    "MODALITY",
    "NO_DECISION",
    "OUTCOME",
    "REALM",
    "STATUS",
    "SUPPORT",
    "TIER",
    "VERDICT",
    "Wording",
    "fragility",
    "level",
]


class Wording(NamedTuple):
    """A choice as the report prints it."""

    label: str
    meaning: str


OUTCOME: dict[Outcome, Wording] = {
    "pass": Wording("Pass", "Every criterion of the policy was met by valid, unexpired evidence."),
    "pass-with-disclosed-gap": Wording(
        "Pass, with disclosed gaps",
        "Every blocking criterion was met. What the evidence cannot reach is stated below and travels with this decision.",
    ),
    "hold": Wording("Hold", "At least one criterion could not be shown to hold. The release waits until it can."),
    "fail": Wording("Fail", "At least one criterion was shown not to hold."),
}
NO_DECISION = Wording("No decision", "No policy has been applied to the evidence. Nothing here permits or blocks a release.")

STATUS: dict[str, Wording] = {
    "met": Wording("met", "The compared end of the interval clears the bar; for a claim, nothing stands against it."),
    "not-met": Wording(
        "not met", "The whole interval lies beyond the bar; for a claim, a gap or weakness stands that nobody accepted."
    ),
    "inconclusive": Wording("inconclusive", "The interval holds the bar, or the evidence does not allow a verdict."),
    "missing": Wording("missing", "There is no usable number. Missing evidence never passes."),
}

VERDICT: dict[Verdict, Wording] = {
    "supported": Wording(
        "hypothesis supported",
        "The instrument's own hypothesis is supported. That is good or bad news according to the hypothesis.",
    ),
    "refuted": Wording("hypothesis refuted", "The instrument's own hypothesis is refuted, within the limits stated."),
    "inconclusive": Wording("inconclusive", "The numbers do not settle the hypothesis either way."),
    "invalid": Wording("invalid", "A control failed; the numbers may not be relied on."),
}

SUPPORT: dict[Support, Wording] = {
    "supported": Wording("supported", "The evidence carries the claim, within its scope."),
    "partially-supported": Wording("partly supported", "The evidence speaks for the claim and does not carry all of it."),
    "not-supported": Wording("not supported", "No valid evidence speaks for the claim."),
    "defeated": Wording("defeated", "Valid evidence speaks against the claim."),
    "no-hook": Wording(
        "no hook", "The requirement names no claim that could be checked technically. That is not the same as covered."
    ),
}

TIER: dict[Tier, Wording] = {
    0: Wording("none", "No evidence that counts."),
    1: Wording("proposed", "A pattern was observed; nothing shows that it causes anything."),
    2: Wording("causally suggestive", "Removing it changes behaviour more than a random control of the same size."),
    3: Wording("mechanistically supported", "Necessary and sufficient, specific and consistent over variations."),
    4: Wording("triangulated", "Instruments that fail in different ways agree."),
    5: Wording("validated", "Triangulated and re-run by someone independent."),
}

MODALITY: dict[Modality, str] = {
    "existence": "that something exists",
    "rate": "how often something happens",
    "bound": "that a quantity stays within a limit",
    "absence": "that something is not there",
    "universal": "that something always holds",
    "mechanism": "how a behaviour comes about",
    "process": "that something was done",
}
REALM: dict[Realm, str] = {
    "observable": "visible in behaviour",
    "latent": "inside the model, not necessarily visible in behaviour",
    "long-horizon": "only over long or future interaction",
}

AXIS: dict[Axis, str] = {
    "model": "model access",
    "variants": "model variants",
    "information": "information",
    "deployment": "deployment",
    "time": "time",
    "independence": "independence",
}

COMPARATOR: dict[Comparator, str] = {"<=": "≤", ">=": "≥", "<": "<", ">": ">"}

_LEVEL = {
    "M0": "no model access",
    "M1": "sampled text",
    "M2": "logits and chain of thought",
    "M3": "activations read",
    "M4": "gradients, activations written",
    "M5": "weights and fine-tuning",
    "M6": "checkpoint from before training",
    "deployed": "deployed version only",
    "fewest-mitigations": "also the least mitigated version",
    "none": "nothing told",
    "docs": "documentation",
    "data-summary": "summary of training data",
    "full": "full information",
    "bare": "bare model",
    "shipped-stack": "shipped stack",
    "production-sample": "sample of production",
    "self": "the developer itself",
    "second-line": "second line of the developer",
    "contracted": "contracted auditor",
    "external": "independent external party",
}

FRAGILE = {
    "F1.subject-not-released": "The model that was measured is not the one that serves people.",
    "F1.data-not-pinned": "Nobody else can be sure to use the same data.",
    "F1.environment-not-pinned": "Nobody else can rebuild the software that gave the number.",
    "F1.no-independent-rerun": "Nobody but the first party has repeated the measurement.",
    "F1.rerun-out-of-tolerance": "Repeating the measurement gave another answer.",
    "F1.expired": "The evidence is older than it was declared to stay valid.",
    "F1.instrument-source-not-public": "An outsider cannot read how the instrument works.",
    "F1.registered-after-results": "Thresholds may have been chosen with the results in sight.",
    "F2.absence-from-sampled-behaviour": "Not seeing something in a sample does not show that it is not there.",
    "F2.latent-from-text": "Text alone cannot show what the model holds inside.",
    "F2.probe-without-control-task": "A probe can learn the task by itself, whatever the model represents.",
    "F2.probe-without-random-baseline": "A random direction might have scored as well.",
    "F2.causal-without-intervention": "A cause is named, and nothing was changed to test it.",
    "F2.necessity-without-sufficiency": "Removing it changes the behaviour; that it produces the behaviour was not shown.",
    "F2.one-ablation-kind": "The effect may belong to the way of removing rather than to what was removed.",
    "F2.no-held-out-distribution": "The finding may hold only on data like that on which it was chosen.",
    "F2.flip-rate-above-limit": "Equally reasonable ways of measuring reach opposite conclusions too often.",
    "F2.specification-not-varied": "Whether another reasonable way of measuring agrees is unknown.",
    "F2.scope-wider-than-evidence": "The claim covers more than was measured.",
    "F2.power-below-limit": "The search could easily have missed what it looked for.",
    "F2.unresolved-defeater": "Some evidence speaks against the claim and has not been answered.",
    "F2.access-not-joint": "Access is counted together that no single run had at once.",
}
_FRAGILE_KIND = {
    "F1": "An outsider could not check this under comparable conditions.",
    "F2": "The conclusion leans on an inference that this kind of evidence does not carry.",
}


def level(axis: Axis, access: Access) -> str:
    """One axis of an access vector in words: `M3, activations read` or `20 business days`."""
    if axis == "time":
        return f"{access.time} business day{'' if access.time == 1 else 's'}"
    name = str(getattr(access, axis))
    return f"{name}, {_LEVEL[name]}" if axis == "model" else _LEVEL[name]


def fragility(code: str) -> str:
    """Why a fragility code matters, in one sentence; the record's own `detail` says what was found."""
    return FRAGILE.get(code) or _FRAGILE_KIND.get(code.split(".")[0], "A weakness of the argument, in the assessor's own terms.")

"""Why an assurance is credited with firmer ground than it has: one small check per reason, in one table.

F1: an independent party could not check it under comparable conditions. F2: the structure of the evidence does not carry the
inference.
"Fragile assurance" is a term of arXiv:2605.15164; the list and the machine checks are ours. Fragile is not false.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

from auditgap.governance.gap import achieved
from auditgap.governance.judged import Judged, agrees, opposes
from auditgap.governance.licensing import InstrumentLicence, Licences, licence, powered
from auditgap.governance.limits import Limits
from auditgap.governance.tier import independent_reruns
from auditgap.records import Access, Claim, Date, Digest, Evidence, FragileReason, Measured, ModelAccess, Property

__all__ = ["Bundle", "CODES", "fragile"]


class Bundle(NamedTuple):
    """The valid evidence that bears on one claim, and what it is held to."""

    claim: Claim
    judged: tuple[Judged, ...]
    required: Access
    table: Licences
    limits: Limits
    today: Date
    released: Digest | None
    """Digest of the subject that serves people; None if it is not known."""


def fragile(bundle: Bundle) -> tuple[FragileReason, ...]:
    """Every reason that holds, sorted by code; empty if no evidence speaks to the claim, or the claim is about process."""
    if not bundle.judged or bundle.claim.modality == "process":
        return ()
    found = {(code, detail) for code, check in _CHECKS.items() for detail in check(bundle)}
    return tuple(FragileReason(code=code, detail=detail) for code, detail in sorted(found))


# F1: an outsider cannot check it


def _subject_not_released(b: Bundle) -> Iterator[str]:
    for j in b.judged:
        if b.released is not None and j.evidence.subject.digest() != b.released:
            yield f"{_name(j)} measured {j.evidence.subject.digest()}, released is {b.released}"


def _data_not_pinned(b: Bundle) -> Iterator[str]:
    return (f"the registration of {_name(j)} holds no data digest" for j in b.judged if not j.registration.data)


def _environment_not_pinned(b: Bundle) -> Iterator[str]:
    return (
        f"{_name(j)} does not say with which library versions it ran" for j in b.judged if not j.evidence.environment.packages
    )


def _no_independent_rerun(b: Bundle) -> Iterator[str]:
    rerun = independent_reruns(b.judged)
    return (f"only one key has signed a result of {_name(j)}" for j in b.judged if j.evidence.spec not in rerun)


def _rerun_out_of_tolerance(b: Bundle) -> Iterator[str]:
    for one, other in combinations(b.judged, 2):
        if one.evidence.spec == other.evidence.spec:
            yield from _differences(one.evidence, other.evidence, b.limits.rerun_tolerance)


def _expired(b: Bundle) -> Iterator[str]:
    return (f"{_name(j)} expired on {j.evidence.expires}" for j in b.judged if j.evidence.expires < b.today)


def _source_not_public(b: Bundle) -> Iterator[str]:
    for j in b.judged:
        citation = j.registration.card.citation.lower()
        if b.table.find(j.evidence.instrument) is None and not any(mark in citation for mark in ("http", "arxiv", "doi")):
            yield f"'{j.evidence.instrument}' is not in the licence table and its citation has no address"


def _registered_after_results(b: Bundle) -> Iterator[str]:
    for j in b.judged:
        if j.evidence.imported is not None:
            yield f"{_name(j)} is an imported log: its results existed before the registration at {j.registration.registered_at}"
        elif j.registration.registered_at > j.evidence.started_at:
            yield f"{_name(j)} began at {j.evidence.started_at}, before its registration at {j.registration.registered_at}"


# F2: the inference is not carried


def _absence_from_sampled_behaviour(b: Bundle) -> Iterator[str]:
    if b.claim.modality in ("absence", "universal") and all(_family(b, j) == "behavioural" for j in b.judged):
        yield f"the {b.claim.modality} claim rests on sampled behaviour only"


def _latent_from_text(b: Bundle) -> Iterator[str]:
    if b.claim.realm == "latent" and all(j.registration.card.needs.rank < ModelAccess.M3.rank for j in b.judged):
        yield "the claim is about internals, and no instrument read further than text and logits"


def _probe_without_control_task(b: Bundle) -> Iterator[str]:
    return _owed(b, "control-task")


def _probe_without_random_baseline(b: Bundle) -> Iterator[str]:
    return _owed(b, "random-baseline")


def _causal_without_intervention(b: Bundle) -> Iterator[str]:
    if b.claim.modality == "mechanism" and "intervention" not in _shown(b):
        yield "the claim is causal and nothing was intervened on"


def _necessity_without_sufficiency(b: Bundle) -> Iterator[str]:
    if "necessity" in _shown(b) and "sufficiency" not in _shown(b):
        yield "necessity was shown, sufficiency was not"


def _one_ablation_kind(b: Bundle) -> Iterator[str]:
    if "necessity" in _shown(b) and "two-ablations" not in _shown(b):
        yield "necessity was shown by one kind of ablation only"


def _no_held_out_distribution(b: Bundle) -> Iterator[str]:
    if any(_family(b, j) != "behavioural" for j in b.judged) and "out-of-distribution" not in _shown(b):
        yield "no result on a distribution other than the one it was fitted or chosen on"


def _flip_rate_above_limit(b: Bundle) -> Iterator[str]:
    for j in b.judged:
        rate = j.evidence.result.flip_rate
        if rate is not None and rate.interval.high > b.limits.max_flip_rate:
            yield (
                f"the conclusion of {_name(j)} flips in {rate.value:.3g} of {rate.n} pairs of specifications "
                f"(upper end {rate.interval.high:.3g}, limit {b.limits.max_flip_rate:.3g})"
            )


def _specification_not_varied(b: Bundle) -> Iterator[str]:
    for j in b.judged:
        if _family(b, j) != "behavioural" and j.evidence.result.flip_rate is None:
            yield f"{_name(j)} was run with one specification only"


def _scope_wider_than_evidence(b: Bundle) -> Iterator[str]:
    if b.claim.modality == "universal":
        yield "the claim is about every input, the evidence about the inputs tried"
    need, have = b.claim.required.deployment, max((j.evidence.granted.deployment for j in b.judged), key=lambda d: d.rank)
    if need.rank > have.rank:
        yield f"the claim is about the {need.value} deployment, the evidence about the {have.value} one"


def _power_below_limit(b: Bundle) -> Iterator[str]:
    for j in b.judged:
        entry = _entry(b, j)
        row = entry.row(b.claim) if entry else None
        if entry and row and row.needs_power and not powered(entry.id, b.claim, b.table, min_power=b.limits.min_power):
            power = entry.power_for(b.claim)
            had = "was not measured" if power is None else f"has a lower bound of {power:.3g}"
            yield f"the power of {entry.id} for this claim {had}; at least {b.limits.min_power:.3g} is needed"


def _unresolved_defeater(b: Bundle) -> Iterator[str]:
    if any(agrees(b.claim, j) for j in b.judged):
        yield from (f"{_name(j)} speaks against the claim" for j in b.judged if opposes(b.claim, j))


def _access_not_joint(b: Bundle) -> Iterator[str]:
    reached = b.required.meet(achieved(b.claim, b.judged, b.table, min_power=b.limits.min_power))
    credited = (
        j.evidence.granted.meet(licence(j.evidence.instrument, b.claim, b.table, min_power=b.limits.min_power)) for j in b.judged
    )
    if not any(access.covers(reached) for access in credited):
        yield "no single run had the access that the runs together are credited with"


_CHECKS: dict[str, Callable[[Bundle], Iterator[str]]] = {
    "F1.subject-not-released": _subject_not_released,
    "F1.data-not-pinned": _data_not_pinned,
    "F1.environment-not-pinned": _environment_not_pinned,
    "F1.no-independent-rerun": _no_independent_rerun,
    "F1.rerun-out-of-tolerance": _rerun_out_of_tolerance,
    "F1.expired": _expired,
    "F1.instrument-source-not-public": _source_not_public,
    "F1.registered-after-results": _registered_after_results,
    "F2.absence-from-sampled-behaviour": _absence_from_sampled_behaviour,
    "F2.latent-from-text": _latent_from_text,
    "F2.probe-without-control-task": _probe_without_control_task,
    "F2.probe-without-random-baseline": _probe_without_random_baseline,
    "F2.causal-without-intervention": _causal_without_intervention,
    "F2.necessity-without-sufficiency": _necessity_without_sufficiency,
    "F2.one-ablation-kind": _one_ablation_kind,
    "F2.no-held-out-distribution": _no_held_out_distribution,
    "F2.flip-rate-above-limit": _flip_rate_above_limit,
    "F2.specification-not-varied": _specification_not_varied,
    "F2.scope-wider-than-evidence": _scope_wider_than_evidence,
    "F2.power-below-limit": _power_below_limit,
    "F2.unresolved-defeater": _unresolved_defeater,
    "F2.access-not-joint": _access_not_joint,
}

CODES: tuple[str, ...] = tuple(_CHECKS)
"""Every code that can appear, in the order of docs/governance.md."""


def _name(judged: Judged) -> str:
    return f"step '{judged.evidence.step}' ({judged.evidence.instrument})"


def _entry(bundle: Bundle, judged: Judged) -> InstrumentLicence | None:
    return bundle.table.find(judged.evidence.instrument)


def _family(bundle: Bundle, judged: Judged) -> str:
    """From the licence table, not from the card; an instrument that is not in it counts as behavioural."""
    entry = _entry(bundle, judged)
    return entry.family if entry else "behavioural"


def _shown(bundle: Bundle) -> set[Property]:
    """Properties shown by any evidence of the bundle."""
    return {shown for j in bundle.judged for shown in j.evidence.result.properties}


def _owed(bundle: Bundle, owed: Property) -> Iterator[str]:
    for j in bundle.judged:
        entry = _entry(bundle, j)
        if entry and owed in entry.owes and owed not in j.evidence.result.properties:
            yield f"{_name(j)} did not show '{owed}'"


def _differences(one: Evidence, other: Evidence, tolerance: float) -> Iterator[str]:
    """What moved between two runs of one specification."""
    if one.result.verdict != other.result.verdict:
        verdicts = sorted((one.result.verdict, other.result.verdict))
        yield f"two runs of step '{one.step}' reach the verdicts {verdicts[0]} and {verdicts[1]}"
    for a in one.result.measurements:
        b = other.result.measurement(a.name)
        if isinstance(a, Measured) and isinstance(b, Measured):
            if abs(a.value - b.value) > tolerance * max(1.0, abs(a.value), abs(b.value)):
                low, high = sorted((a.value, b.value))
                yield f"two runs of step '{one.step}' measure {a.name} as {low:.6g} and {high:.6g} (tolerance {tolerance:g})"
        elif b is None or a.status != b.status:
            yield f"of two runs of step '{one.step}' only one measured {a.name}"

"""Replay: the stimulus of an incident again, with one component at a time exchanged between two releases.

1. Each arm is a mixture of the affected release and a reference. Every arm meets the same stimuli and the same seeds, so the
   order of the arms is irrelevant.
2. A run is broken if the case's verdict on it is BROKEN. What raises an error or cannot be judged counts neither way.
3. Design `each`: a component is attributed if giving the affected release the reference's part removes the breakage, giving the
   reference the affected part brings it, and both hold for this component only. Design `full`: every mixture is run, and a
   component is attributed if its main effect is the only one shown, and no interaction is.
4. All effects are judged together: their intervals hold at once at the level asked for (Bonferroni).

Intervals are square-and-add on Clopper-Pearson, see `auditgap.stats.contrasts`.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple, cast

from auditgap.errors import UsageError
from auditgap.evidence import Store
from auditgap.incidents.dossier import Dossier, find
from auditgap.incidents.freezing import thaw_case
from auditgap.incidents.releases import COMPONENTS, Assembled, Release, mixed
from auditgap.records import Digest, Interval, Measured, Measurement, NotMeasured, now
from auditgap.records.incident import Arm, Component, Effect, Incident, Replay
from auditgap.release.cases import Case, Stimulus, try_once
from auditgap.release.cases.case import digest_with
from auditgap.release.diagnostics import mixtures, swap_effects
from auditgap.stats import clopper_pearson, contrast

__all__ = ["replay", "replay_incident"]

_NON_CLAIMS = (
    "It attributes the difference between two releases, not a flaw that both have.",
    "The repeats of a fixed script are no sample: their interval is what as many independent runs would show.",
    "It speaks for the stimuli that were replayed and for no others.",
    "That the parts which ran are those of the manifests is what whoever wrote the releases states.",
)
_Set = frozenset[Component]
_ALL: _Set = frozenset(COMPONENTS)


class _Counted(NamedTuple):
    n_broken: int
    n: int
    n_undecided: int


def replay(
    incident: Incident,
    digest: Digest,
    affected: Release,
    reference: Release,
    case: Case,
    stimuli: Sequence[Stimulus],
    *,
    full: bool = False,
    n_repeats: int = 20,
    order: Sequence[Component] = COMPONENTS,
    level: float = 0.95,
    seed: int = 0,
) -> Replay:
    """Which component makes the difference between the affected release and a reference, under these stimuli.

    Args:
        incident: what happened; its release must be the affected one.
        digest: of the signed incident.
        affected: the release of the incident, from its frozen parts.
        reference: a release that stands for how it should be: usually the last good one.
        case: says what counts as broken.
        stimuli: of the case; repeats go round them.
        full: run every mixture instead of one component at a time, both ways.
        n_repeats: runs per arm.
        order: in which components are swapped; it changes nothing but the order of the arms.
        level: that of all intervals together.
        seed: of the fault plans; repeat k has seed + k in every arm.

    Raises:
        UsageError: the affected release is not the incident's, no stimuli, or parts that cannot be swapped.
    """
    if affected.fingerprint != incident.release:
        raise UsageError(
            f"incident '{incident.id}' is about release {incident.release[:19]}, got {affected.fingerprint[:19]} "
            f"({affected.manifest.name}); replay the frozen release"
        )
    if not stimuli or n_repeats < 1 or sorted(order) != sorted(COMPONENTS):
        raise UsageError(f"expected stimuli, at least one repeat, and an order of {', '.join(COMPONENTS)}")
    counts: dict[_Set, _Counted] = {}
    for taken in _full(order) if full else _each(order):
        counts[taken] = _count(mixed(affected, reference, taken), case, stimuli, n_repeats, seed)
    blind = [taken for taken, counted in counts.items() if counted.n == 0]
    effects = () if blind else _main_effects(counts, level) if full else _swaps(counts, level)
    overall = _difference("broken-rate.overall", counts[frozenset()], counts[_ALL], level)
    attributed, why = _attributed(effects, overall, blind, full=full)
    return Replay(
        incident=digest,
        affected=affected.fingerprint,
        reference=reference.fingerprint,
        case=case.id,
        case_digest=digest_with(case, stimuli),
        design="full" if full else "each",
        n_repeats=n_repeats,
        seed=seed,
        arms=tuple(_arm(taken, counted) for taken, counted in counts.items()),
        effects=effects,
        overall=overall,
        attributed=attributed or "not-attributed",
        why=why,
        non_claims=_NON_CLAIMS,
        replayed_at=now(),
    )


def replay_incident(
    store: Store,
    name: str,
    affected: Release,
    reference: Release,
    *,
    case: tuple[Case, Sequence[Stimulus]] | None = None,
    frozen: Path | None = None,
    full: bool = False,
    n_repeats: int = 20,
    seed: int = 0,
) -> Dossier:
    """Replay an incident of a store and sign what it showed; the case is the frozen one if none is given.

    Raises:
        UsageError: as `replay`; no such incident, it is closed, or no case was given or frozen.
    """
    dossier = find(store, name)
    if dossier.closing is not None:
        raise UsageError(f"incident '{dossier.incident.id}' is closed; what comes up again is a new incident")
    chosen, stimuli = case or thaw_case(frozen or store.folder / "frozen", dossier.incident.frozen)
    found = replay(
        dossier.incident, dossier.digest, affected, reference, chosen, stimuli, full=full, n_repeats=n_repeats, seed=seed
    )
    store.add(found)
    return find(store, dossier.digest)


def _each(order: Sequence[Component]) -> list[_Set]:
    """Nothing swapped, each alone, all but each, everything."""
    return [frozenset(), *(frozenset({name}) for name in order), *(_ALL - {name} for name in order), _ALL]


def _full(order: Sequence[Component]) -> list[_Set]:
    return [frozenset(name for name, origin in zip(order, key, strict=True) if origin == "old") for key in mixtures(order)]


def _count(assembled: Assembled, case: Case, stimuli: Sequence[Stimulus], n_repeats: int, seed: int) -> _Counted:
    verdicts = [
        try_once(case, stimulus, system=assembled.system, agent=assembled.agent, seed=seed + place).verdict.verdict
        for place, stimulus in enumerate(islice(cycle(stimuli), n_repeats))
    ]
    n_undecided = verdicts.count("INCONCLUSIVE")
    return _Counted(verdicts.count("BROKEN"), len(verdicts) - n_undecided, n_undecided)


def _swaps(counts: Mapping[_Set, _Counted], level: float) -> tuple[Effect, ...]:
    each = 1.0 - (1.0 - level) / (2 * len(COMPONENTS))
    found = []
    for name in COMPONENTS:
        one: _Set = frozenset({name})
        restored = _difference(f"broken-rate.restored.{name}", counts[frozenset()], counts[one], each)
        transplanted = _difference(f"broken-rate.transplanted.{name}", counts[_ALL - one], counts[_ALL], each)
        found.append(Effect(components=(name,), kind="restored", effect=restored, shown=_shown(restored)))
        found.append(Effect(components=(name,), kind="transplanted", effect=transplanted, shown=_shown(transplanted)))
    return tuple(found)


def _main_effects(counts: Mapping[_Set, _Counted], level: float) -> tuple[Effect, ...]:
    """Main effects and interactions of every mixture; `old` is the reference, `new` the affected release."""
    outcomes = {}
    for key in mixtures(COMPONENTS):
        taken: _Set = frozenset(name for name, origin in zip(COMPONENTS, key, strict=True) if origin == "old")
        outcomes[key] = (counts[taken].n_broken, counts[taken].n)
    found = []
    for effect in swap_effects(outcomes, layers=COMPONENTS, level=level).effects:
        names, n = cast("tuple[Component, ...]", effect.layers), sum(n for _, n in outcomes.values())
        kind = "main" if len(names) == 1 else "interaction"
        measured = _measured(f"broken-rate.{kind}.{'-x-'.join(names)}", effect.value, n, effect.interval)
        found.append(Effect(components=names, kind=kind, effect=measured, shown=effect.shown))
    return tuple(found)


def _attributed(
    effects: Sequence[Effect], overall: Measurement, blind: Sequence[_Set], *, full: bool
) -> tuple[Component | None, str]:
    """The one component that makes the difference, or None, and why."""
    if blind:
        which = "; ".join(" and ".join(sorted(taken)) or "nothing" for taken in blind)
        return None, f"no run could be judged with {which} taken from the reference; repair the mixture and replay again"
    if full:
        return _from_mixtures(effects)
    if not _raises(overall):
        return None, (
            "the affected release is not shown to break more often than the reference on this stimulus: choose another "
            "reference, or more repeats"
        )
    needed: list[Component] = [e.components[0] for e in effects if e.kind == "restored" and _raises(e.effect)]
    enough: list[Component] = [e.components[0] for e in effects if e.kind == "transplanted" and _raises(e.effect)]
    if len(needed) == 1 and needed == enough:
        (name,) = needed
        return name, f"the reference's {name} alone mends the affected release, and the affected one alone breaks the reference"
    return None, (
        f"no single component explains it: alone it mends the affected release for {_listed(needed)}, and breaks the reference "
        f"for {_listed(enough)}; run the full design, or more repeats"
    )


def _from_mixtures(effects: Sequence[Effect]) -> tuple[Component | None, str]:
    shown = [e for e in effects if e.shown]
    if len(shown) == 1 and shown[0].kind == "main" and _raises(shown[0].effect):
        (name,) = shown[0].components
        return name, f"over all mixtures only the {name} moves the rate of broken runs"
    return None, f"no single component explains it: shown are {_listed([' x '.join(e.components) for e in shown])}"


def _difference(name: str, more: _Counted, less: _Counted, level: float) -> Measurement:
    """Rate of broken runs of one arm less that of another."""
    if not (more.n and less.n):
        return NotMeasured(name=name, reason="an arm has no run that could be judged")
    found = contrast([more[:2], less[:2]], [1.0, -1.0], level=level)
    return _measured(name, found.value, more.n + less.n, found.interval)


def _measured(name: str, value: float, n: int, interval: Interval) -> Measured:
    return Measured(name=name, value=value, unit="rate", n=n, interval=interval, about="difference of rates of broken runs")


def _arm(taken: _Set, counted: _Counted) -> Arm:
    name = "broken-rate"
    found: tuple[Component, ...] = tuple(component for component in COMPONENTS if component in taken)
    rate: Measurement = NotMeasured(name=name, reason="no run could be judged")
    if counted.n:
        interval = clopper_pearson(counted.n_broken, counted.n)
        rate = Measured(name=name, value=counted.n_broken / counted.n, unit="rate", n=counted.n, interval=interval)
    return Arm(from_reference=found, n=counted.n, n_broken=counted.n_broken, n_undecided=counted.n_undecided, broken_rate=rate)


def _shown(measurement: Measurement) -> bool:
    return measurement.status == "measured" and not measurement.interval.low <= 0.0 <= measurement.interval.high


def _raises(measurement: Measurement) -> bool:
    """True if it is shown to be above 0."""
    return measurement.status == "measured" and measurement.interval.low > 0.0


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"

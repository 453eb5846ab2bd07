"""Runs an integrity case and says what it showed.

For each stimulus, on a fresh stack:

1. the faults are armed, the agent acts, and the world is read: effects from the ledger, controls and faults from the events;
2. each expectation is decided in that world, and the adherence state of the intended action is read off;
3. the worst applicable verdict counts: BROKEN (an expectation failed), FAULT_NOT_FIRED, CONTROL_NOT_ON_PATH, INCONCLUSIVE (one
   could not be decided), DEGRADED, HELD.

Then the case is run again with its control left out. Unless that is BROKEN, the case cannot fail and shows nothing.
"""

import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import NamedTuple

from auditgap.errors import UsageError
from auditgap.records import now
from auditgap.records.integrity import ADHERENCE, AdherenceState, CaseResult, CaseVerdict, ExpectationResult, Mode
from auditgap.release.cases.case import Case, Expectation, Stimulus, digest_with
from auditgap.release.cases.oracle import Judged, World, adherence, judge
from auditgap.release.cases.scripted import scripted
from auditgap.release.cases.session import REFERENCE, Agent, Session, System
from auditgap.release.events import Event, EventLog
from auditgap.release.faults import Injector
from auditgap.stats import clopper_pearson

__all__ = ["Trial", "Verdict", "run_case", "try_once"]

_WORST_FIRST: tuple[CaseVerdict, ...] = (
    "BROKEN",
    "FAULT_NOT_FIRED",
    "CONTROL_NOT_ON_PATH",
    "INCONCLUSIVE",
    "DEGRADED",
    "HELD",
)


class Verdict(NamedTuple):
    """What one trial showed, and why."""

    verdict: CaseVerdict
    why: str


@dataclass(frozen=True)
class Trial:
    """One run of one stimulus."""

    world: World
    silent: tuple[str, ...]
    """Faults that never acted."""
    judged: tuple[Judged, ...]
    """One per expectation of the case."""
    adherence: AdherenceState
    events: tuple[Event, ...]
    verdict: Verdict


def run_case(
    case: Case,
    stimuli: Sequence[Stimulus],
    *,
    mode: Mode = "scripted",
    system: System = REFERENCE,
    agent: Agent | None = None,
    without: Collection[str] = (),
    seed: int = 0,
    sabotage: bool = True,
) -> CaseResult:
    """What the case showed in one mode. `without` names controls that the stack lacks; then there is no sabotage run.

    Raises:
        UsageError: the case has not this mode, or a control to leave out is unknown.
    """
    if mode not in case.modes:
        raise UsageError(f"case '{case.id}' runs in {', '.join(case.modes)}; got mode '{mode}'")
    if mode == "live" and (agent is None or case.stats is None):
        return _result(
            case, stimuli, mode, (), Verdict("NOT_RUN", "no agent was given" if agent is None else "no stats.live"), without
        )
    repeats = case.stats.live.n if mode == "live" and case.stats else len(stimuli)
    trials = [
        try_once(case, stimulus, system=system, agent=agent if mode == "live" else None, without=without, seed=seed + place)
        for place, stimulus in enumerate(islice(cycle(stimuli), repeats))
    ]
    verdict = _live(case, trials) if mode == "live" else _worst(trials)
    result = _result(case, stimuli, mode, trials, verdict, without)
    if not (sabotage and case.sabotage) or without:
        return result
    broken = (
        run_case(case, stimuli, system=system, without=(case.sabotage.disable,), seed=seed) if "scripted" in case.modes else None
    )
    return _with_sabotage(result, broken)


def try_once(
    case: Case,
    stimulus: Stimulus,
    *,
    system: System = REFERENCE,
    agent: Agent | None = None,
    without: Collection[str] = (),
    seed: int = 0,
) -> Trial:
    """One run of one stimulus on a fresh stack; without an agent, the scripted one acts."""
    log, crash = EventLog(), ""
    injector = Injector(case.plan(seed), log)
    with tempfile.TemporaryDirectory(prefix="auditgap-case-") as folder:
        stack = system.open(injector, Path(folder), without, stimulus)
        try:
            log.add("intent", tool=stimulus.intent.tool, name=stimulus.intent.key, content=stimulus.prompt)
            session = Session(stack, log)
            try:
                reply = (agent or scripted(stimulus, injector))(stimulus.prompt, session)
            except Exception as error:  # of the agent or the stack, neither of which is ours: the run decides nothing
                reply, crash = "", f"{type(error).__name__}: {error}"
            log.add("reply", content=reply)
            world = session.world(stimulus, reply)
        finally:
            stack.close()
    state = adherence(
        world, kept_out=agent is None and any(step.when_told and step.tool == stimulus.intent.tool for step in stimulus.steps)
    )
    judged = tuple(_decided(expectation, world, state) for expectation in case.expect)
    silent = injector.silent()
    return Trial(world, silent, judged, state, log.events(), _verdict(case, world, silent, judged, without, crash))


def _decided(expectation: Expectation, world: World, state: AdherenceState) -> Judged:
    if expectation.adherence_in is not None:
        return Judged("held" if state in expectation.adherence_in else "failed", f"adherence state {state}")
    return judge(expectation.expr or "", world)


def _verdict(
    case: Case, world: World, silent: Sequence[str], judged: Sequence[Judged], without: Collection[str], crash: str
) -> Verdict:
    """Steps from worst to best; see the module docstring."""
    failed = [(e, j) for e, j in zip(case.expect, judged, strict=True) if j.outcome == "failed"]
    for expectation, outcome in failed:
        if expectation.otherwise == "BROKEN":
            return Verdict("BROKEN", f"'{expectation.id}' does not hold{f': {outcome.why}' if outcome.why else ''}")
    if crash:
        return Verdict("INCONCLUSIVE", f"the run raised {crash}")
    if silent:
        return Verdict("FAULT_NOT_FIRED", f"never acted: {', '.join(silent)}")
    if case.control.id not in without and not any(control.id == case.control.id for control in world.controls):
        return Verdict("CONTROL_NOT_ON_PATH", f"{case.control.id} said nothing about any call")
    for expectation, outcome in zip(case.expect, judged, strict=True):
        if outcome.outcome == "error":
            return Verdict("INCONCLUSIVE", f"'{expectation.id}' could not be decided: {outcome.why}")
    if failed:
        return Verdict("DEGRADED", f"safe, but '{failed[0][0].id}' does not hold")
    if case.attribution and case.attribution.must_hold_at not in (acted := _layers_that_acted(world)):
        return Verdict("DEGRADED", f"held at {', '.join(sorted(acted)) or 'no layer'}, not at {case.attribution.must_hold_at}")
    return Verdict("HELD", f"{len(judged)} expectations hold")


def _layers_that_acted(world: World) -> set[str]:
    return {control.layer for control in world.controls if control.outcome not in ("allowed", "error")}


def _worst(trials: Sequence[Trial]) -> Verdict:
    return min((trial.verdict for trial in trials), key=lambda verdict: _WORST_FIRST.index(verdict.verdict))


def _exposed(trials: Sequence[Trial]) -> list[Trial]:
    """Live runs that count: every fault acted and the control was reached. An agent that refuses before has not tested it."""
    return [trial for trial in trials if trial.verdict.verdict not in ("FAULT_NOT_FIRED", "CONTROL_NOT_ON_PATH")]


def _live(case: Case, trials: Sequence[Trial]) -> Verdict:
    stats, exposed = case.stats, _exposed(trials)
    for trial in trials:
        if trial.world.calls and trial.verdict.verdict == "CONTROL_NOT_ON_PATH":
            return trial.verdict
    if stats is None or not exposed:
        return Verdict("FAULT_NOT_FIRED", f"no run of {len(trials)} met the fault and reached the control")
    worst = _worst(exposed)
    if worst.verdict == "INCONCLUSIVE":
        return worst
    n_broken = sum(trial.verdict.verdict == "BROKEN" for trial in exposed)
    upper = _upper(n_broken, len(exposed), stats.live.level)
    shown = (
        f"{n_broken} of {len(exposed)} broken, rate at most {upper:.3g} at {stats.live.level:g}; asked {stats.live.max_rate:g}"
    )
    if upper <= stats.live.max_rate:
        return Verdict("DEGRADED" if worst.verdict == "DEGRADED" else "HELD", shown)
    return Verdict("BROKEN" if n_broken else "INCONCLUSIVE", shown)


def _upper(n_broken: int, n: int, level: float) -> float:
    """One-sided exact bound: the upper end of the two-sided interval at `2 level - 1`."""
    return clopper_pearson(n_broken, n, level=2 * level - 1).high


def _result(
    case: Case, stimuli: Sequence[Stimulus], mode: Mode, trials: Sequence[Trial], verdict: Verdict, without: Collection[str]
) -> CaseResult:
    counted = _exposed(trials) if mode == "live" else trials
    n_broken = sum(trial.verdict.verdict == "BROKEN" for trial in counted)
    level = case.stats.live.level if mode == "live" and case.stats and counted else None
    states = Counter(trial.adherence for trial in trials)
    return CaseResult(
        case=case.id,
        case_digest=digest_with(case, stimuli),
        control=case.control.id,
        layer=case.control.layer,
        severity=case.severity,
        claims=case.claims,
        mode=mode,
        verdict=verdict.verdict,
        reason=verdict.why,
        declared=case.declared.verdict if case.declared else "HELD",
        without=tuple(sorted(without)),
        faults=tuple(sorted({fault.kind for fault in case.faults})),
        n=len(counted),
        n_broken=n_broken,
        upper=_upper(n_broken, len(counted), level) if level else None,
        level=level,
        expectations=tuple(
            _expectation(expectation, [trial.judged[place] for trial in counted]) for place, expectation in enumerate(case.expect)
        ),
        adherence={state: states[state] for state in ADHERENCE if states[state]},
        finished_at=now(),
    )


def _expectation(expectation: Expectation, judged: Sequence[Judged]) -> ExpectationResult:
    decided = [outcome for outcome in judged if outcome.outcome != "error"]
    errors = [outcome.why for outcome in judged if outcome.outcome == "error"]
    return ExpectationResult(
        id=expectation.id,
        n=len(decided),
        n_failed=sum(outcome.outcome == "failed" for outcome in decided),
        error=errors[0] if errors else "",
    )


def _with_sabotage(result: CaseResult, broken: CaseResult | None) -> CaseResult:
    """The result with the verdict of the sabotage run; a case that cannot fail has shown nothing by passing."""
    verdict = broken.verdict if broken else "NOT_RUN"
    update: dict[str, object] = {"sabotage": verdict}
    if result.passed and broken and verdict != "BROKEN":
        update |= {
            "verdict": "INCONCLUSIVE",
            "reason": f"cannot fail: {verdict} with {result.control} left out ({broken.reason})",
        }
    return result.model_copy(update=update)

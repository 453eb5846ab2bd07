"""A suite of cases: read, checked, registered, run, and run with each control left out in turn."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from auditgap.errors import PlanError, RegistrationError, UsageError, nearest
from auditgap.records import canonical_json, digest_of, now
from auditgap.records.integrity import CaseVerdict, IntegrityRun, Mode, SuiteRegistration
from auditgap.release.cases.case import Case, Stimulus, digest_with, load_cases, load_stimuli, shipped
from auditgap.release.cases.lint import checked
from auditgap.release.cases.running import run_case
from auditgap.release.cases.session import REFERENCE, Agent, System

__all__ = ["Suite", "load_suite", "register", "removed_in_turn", "run_suite"]

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Suite:
    """Cases with their stimuli, found sound by the linter."""

    cases: tuple[tuple[Case, tuple[Stimulus, ...]], ...]

    def digests(self) -> dict[str, str]:
        """Digest of each case with its stimuli."""
        return {case.id: digest_with(case, stimuli) for case, stimuli in self.cases}

    def digest(self) -> str:
        """Digest of the suite: another case, stimulus or threshold is another suite."""
        return digest_of(canonical_json({**self.digests()}))

    def only(self, case_id: str) -> "Suite":
        """The suite of one case.

        Raises:
            UsageError: there is no such case.
        """
        kept = tuple(pair for pair in self.cases if pair[0].id == case_id or pair[0].id.startswith(f"{case_id}-"))
        if not kept:
            raise UsageError(f"no case '{case_id}'{nearest(case_id, self.digests())}")
        return Suite(kept)


def load_suite(folder: Path | None = None, *, system: System = REFERENCE) -> Suite:
    """The cases of a folder, or the shipped ones.

    Raises:
        PlanError: a case is malformed, or the linter refuses it.
    """
    folder = folder or shipped()
    if not folder.is_dir():
        raise PlanError(f"expected a folder of cases, got {folder}; check the path")
    cases = load_cases(folder)
    pairs = tuple((case, load_stimuli(folder, case)) for case in cases)
    checked(cases, system.controls)
    return Suite(pairs)


def register(suite: Suite, *, manifest: str | None = None) -> SuiteRegistration:
    """Write down which cases will be run, before they are; `manifest` is the release fingerprint of the stack."""
    return SuiteRegistration(suite=suite.digest(), cases=suite.digests(), manifest=manifest, registered_at=now())


def run_suite(
    suite: Suite,
    registration: SuiteRegistration,
    *,
    system: System = REFERENCE,
    agent: Agent | None = None,
    modes: Collection[Mode] = ("scripted",),
    without: Collection[str] = (),
    in_turn: bool = False,
    seed: int = 0,
    progress: Progress = lambda label, done, total: None,
) -> IntegrityRun:
    """Every case in those of the modes that it has; live is NOT_RUN without an agent. `in_turn` also leaves out each control.

    Raises:
        RegistrationError: the suite is not the one that was registered.
        UsageError: no case has any of the modes.
    """
    if registration.suite != suite.digest():
        raise RegistrationError(
            f"registered suite {registration.suite[:19]}, got {suite.digest()[:19]}; a case was changed, added or left out since:"
            f" register again, or take back the change"
        )
    started_at = now()
    runs: list[tuple[Case, tuple[Stimulus, ...], Mode]] = [
        (case, stimuli, mode) for case, stimuli in suite.cases for mode in case.modes if mode in modes
    ]
    if not runs:
        raise UsageError(f"no case of the suite runs in {', '.join(modes)}; choose another mode or suite")
    results = []
    for done, (case, stimuli, mode) in enumerate(runs, start=1):
        results.append(run_case(case, stimuli, mode=mode, system=system, agent=agent, without=without, seed=seed))
        progress("cases", done, len(runs))
    return IntegrityRun(
        suite=registration.suite,
        registration=registration.digest(),
        manifest=registration.manifest,
        system=system.name,
        seed=seed,
        results=tuple(results),
        removed=removed_in_turn(suite, system=system, seed=seed, progress=progress) if in_turn else {},
        registered_at=registration.registered_at,
        started_at=started_at,
        finished_at=now(),
    )


def removed_in_turn(
    suite: Suite, *, system: System = REFERENCE, seed: int = 0, progress: Progress = lambda label, done, total: None
) -> dict[str, dict[str, CaseVerdict]]:
    """Leave out each control of the stack in turn, and run every case: control -> case -> verdict."""
    verdicts: dict[str, dict[str, CaseVerdict]] = {}
    for done, control in enumerate(system.controls, start=1):
        verdicts[control] = {
            case.id: run_case(case, stimuli, system=system, without=(control,), seed=seed).verdict
            for case, stimuli in suite.cases
            if "scripted" in case.modes
        }
        progress("controls left out", done, len(system.controls))
    return verdicts

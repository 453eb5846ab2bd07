"""Closing: only with a case that is BROKEN on what shipped and HELD on the fix, and that the gate asks for from then on.

1. The case is run on the affected release, on the fix, and on the fix without the case's control (it must be able to fail).
2. The case goes into the corpus, and the next version of the gate's policy requires it.
3. The closing is signed. Nothing is written unless all of it can be.
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from auditgap.errors import UsageError
from auditgap.evidence import Store
from auditgap.incidents.corpus import add_case, check_corpus, policy_text, with_case
from auditgap.incidents.dossier import Dossier, find
from auditgap.incidents.releases import Release
from auditgap.records import CaseResult, Closing, now
from auditgap.release.cases import Case, Stimulus, run_case
from auditgap.release.cases.case import digest_with
from auditgap.release.promotion import PromotionPolicy

__all__ = ["Closed", "Proof", "close_incident", "prove"]


class Proof(NamedTuple):
    """What the regression case showed on both releases."""

    affected: CaseResult
    fix: CaseResult
    missing: tuple[str, ...]
    """What it did not show; empty if the case proves the fix."""


class Closed(NamedTuple):
    """An incident after an attempt to close it."""

    dossier: Dossier
    policy: PromotionPolicy | None
    """The next version of the gate's policy; None if it cannot be closed yet."""
    refused: tuple[str, ...]
    """Why it cannot be closed yet; empty if it is closed."""


def prove(case: Case, stimuli: Sequence[Stimulus], affected: Release, fix: Release, *, seed: int = 0) -> Proof:
    """Run the case where it must break and where it must hold.

    Raises:
        UsageError: the case has not the mode that these releases need.
    """
    bad, good = affected.opened(), fix.opened()
    if bad.mode != good.mode:
        raise UsageError(f"expected two releases with a model or two without, got modes {bad.mode} and {good.mode}")
    broke = run_case(case, stimuli, mode=bad.mode, system=bad.system, agent=bad.agent, seed=seed, sabotage=False)
    held = run_case(case, stimuli, mode=good.mode, system=good.system, agent=good.agent, seed=seed)
    missing = []
    if affected.fingerprint == fix.fingerprint:
        missing.append("the fix has the fingerprint of the affected release")
    if broke.verdict != "BROKEN":
        missing.append(f"{case.id} is {broke.verdict} on the affected release ({broke.reason}): it does not show what happened")
    if held.verdict != "HELD":
        missing.append(f"{case.id} is {held.verdict} on the fix ({held.reason})")
    elif held.sabotage != "BROKEN":
        missing.append(f"{case.id} cannot fail: it is {held.sabotage or 'NOT_RUN'} on the fix without {case.control.id}")
    return Proof(broke, held, tuple(missing))


def close_incident(
    store: Store,
    name: str,
    case: Case | None,
    stimuli: Sequence[Stimulus],
    *,
    affected: Release,
    fix: Release,
    policy: PromotionPolicy,
    corpus: Path,
    out: Path,
    requirement: str | None = None,
    contained_at: dt.datetime | None = None,
    seed: int = 0,
) -> Closed:
    """Close an incident, or say what is missing.

    Args:
        store: where it was opened.
        name: its id or digest.
        case: the regression case; None cannot close it.
        stimuli: of the case.
        affected: the release of the incident.
        fix: the release that mends it.
        policy: the gate's policy, which does not ask for the case yet.
        corpus: folder of the policy's case set; the case is added to it.
        out: new file for the next version of the policy.
        requirement: integrity requirement that takes the case, where several could.
        contained_at: when it was contained, if it was not when it was opened.
        seed: of the fault plans.

    Raises:
        UsageError: no such incident, it is closed or a false alarm, another release was affected, `out` is there already, the
            corpus is not the policy's, or it was contained before it was detected.
        PlanError: the linter refuses the case.
    """
    dossier = find(store, name)
    incident = dossier.incident
    if dossier.state in ("closed", "false-alarm"):
        raise UsageError(f"incident '{incident.id}' is {dossier.state}: there is nothing to close")
    if affected.fingerprint != incident.release:
        raise UsageError(f"incident '{incident.id}' is about release {incident.release[:19]}, got {affected.fingerprint[:19]}")
    if out.exists():
        raise UsageError(f"{out} is there already; name a new file for the next version of the policy")
    contained, triage, closed = contained_at or incident.contained_at, dossier.triage, now()
    if contained is not None and not incident.detected_at <= contained <= closed:
        raise UsageError(
            f"it was detected on {incident.detected_at:%Y-%m-%d %H:%M} and cannot have been contained on "
            f"{contained:%Y-%m-%d %H:%M}; expected a time between then and now"
        )
    missing = [] if triage else ["it was not triaged"]
    missing += [] if contained else ["it was not contained, or nobody said when"]
    if case is None:
        return Closed(dossier, None, (*missing, "there is no regression case"))
    proof = prove(case, stimuli, affected, fix, seed=seed)
    if triage is None or contained is None or missing or proof.missing:
        return Closed(dossier, None, (*missing, *proof.missing))
    suite = check_corpus(corpus, case, stimuli, policy, system=fix.opened().system)
    next_policy = with_case(policy, case, mode=proof.fix.mode, suite=suite.digest(), requirement=requirement)
    closing = Closing(
        incident=dossier.digest,
        triage=triage.digest,
        replay=dossier.replay.digest if dossier.replay else None,
        case=case.id,
        case_digest=digest_with(case, stimuli),
        mode=proof.fix.mode,
        affected=affected.fingerprint,
        affected_verdict=proof.affected.verdict,
        fix=fix.fingerprint,
        fix_verdict=proof.fix.verdict,
        fix_sabotage=proof.fix.sabotage or "NOT_RUN",
        policy_before=policy.digest(),
        policy_after=next_policy.digest(),
        suite_before=policy.suite,
        suite_after=suite.digest(),
        occurred_at=incident.occurred_at,
        detected_at=incident.detected_at,
        contained_at=contained,
        closed_at=closed,
    )
    add_case(corpus, case, stimuli)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("x", encoding="utf-8") as file:
        file.write(policy_text(next_policy))
    store.add(closing)
    return Closed(find(store, dossier.digest), next_policy, ())

"""What an incident sets off elsewhere: the written response of a trigger, and the evidence that does not count any more.

A confirmed incident is a `serious-incident` event of the review plan. The claims that are about its failure mode are reassessed:
all evidence on them up to the day of detection is expired, and so is what was measured of instruments' power on that failure
mode, until it is measured again.
"""

import datetime as dt
from collections.abc import Sequence
from typing import NamedTuple

from auditgap.evidence import Store
from auditgap.governance import claims
from auditgap.governance.review_records import Event, Reassessment, Response, ReviewPlan
from auditgap.incidents.dossier import Dossier
from auditgap.records import Claim, Date

__all__ = ["Escalation", "Expired", "escalation", "expired", "with_incidents"]


class Escalation(NamedTuple):
    """What is due because of an incident."""

    incident: str
    trigger: str | None
    """None: no trigger is registered for it, so somebody must decide now."""
    owner: str
    response: str
    by: Date


class Expired(NamedTuple):
    """What an incident takes away."""

    kind: str
    """`claim`, `evidence` or `licence`."""
    name: str
    digest: str
    """Of the statement; empty for a claim."""
    why: str


def escalation(plan: ReviewPlan, dossier: Dossier) -> tuple[Escalation, ...]:
    """Who owes which response by when, as the plan's triggers for serious incidents say."""
    event = _event(dossier)
    found = [
        Escalation(
            dossier.incident.id, t.id, t.owner, t.response.after(event.day), event.day + dt.timedelta(days=t.response.within_days)
        )
        for t in plan.triggers
        if t.event == event.kind
    ]
    nobody = "no trigger is registered for a serious incident: decide now, then add one"
    return tuple(found) or (Escalation(dossier.incident.id, None, plan.owner, nobody, event.day),)


def expired(store: Store, dossier: Dossier) -> tuple[Expired, ...]:
    """Claims, evidence and measured power on the failure mode of a confirmed incident; of any other incident, nothing."""
    if not _is_confirmed(dossier) or dossier.triage is None:
        return ()
    mode, day = dossier.triage.record.failure_mode, dossier.incident.detected_at.date()
    why = f"incident '{dossier.incident.id}' of {day} is of failure mode {mode}"
    found = [Expired("claim", claim.id, "", why) for claim in _claims_about(mode)]
    reach = {s.digest: s.record.card for s in store.registrations() if mode in s.record.card.failure_modes}
    found += [
        Expired("evidence", f"{s.record.instrument} ({s.record.step})", s.digest, why)
        for s in store.evidence()
        if s.record.registration in reach and s.record.finished_at.date() <= day
    ]
    found += [
        Expired("licence", f"{cell.instrument} on {cell.organism} ({cell.difficulty})", s.digest, why)
        for s in store.calibrations()
        if s.record.made_at.date() <= day
        for cell in s.record.cells
        if cell.failure_mode == mode
    ]
    return tuple(found)


def with_incidents(plan: ReviewPlan, known: Sequence[Dossier]) -> ReviewPlan:
    """The plan with every confirmed incident as an event, and a reassessment of the claims about its failure mode.

    A closed incident is an answered event; the evidence stays expired until it is measured again. An event of the same id in the
    plan is the incident already, with what people wrote about it.
    """
    confirmed = [d for d in known if _is_confirmed(d)]
    noted = {event.id for event in plan.events}
    events = [_event(d) for d in confirmed if d.incident.id not in noted]
    modes = dict.fromkeys(d.triage.record.failure_mode for d in confirmed if d.triage)
    taken = {item.id for items in (plan.milestones, plan.triggers, plan.reassessments, plan.portfolio) for item in items}
    added = [
        _reassessment(plan, f"incident-{mode}", _claims_about(mode))
        for mode in modes
        if _claims_about(mode) and f"incident-{mode}" not in taken
    ]
    return plan.model_copy(update={"events": (*plan.events, *events), "reassessments": (*plan.reassessments, *added)})


def _is_confirmed(dossier: Dossier) -> bool:
    return dossier.triage is not None and dossier.triage.record.finding == "confirmed"


def _event(dossier: Dossier) -> Event:
    incident, closing = dossier.incident, dossier.closing
    day = incident.detected_at.date()
    answered = max(day, closing.record.closed_at.date()) if closing else None
    answer = f"closed with case {closing.record.case}, fix {closing.record.fix[:19]}" if closing else None
    return Event(id=incident.id, kind="serious-incident", day=day, what=incident.title, answered=answered, answer=answer)


def _reassessment(plan: ReviewPlan, name: str, about: Sequence[Claim]) -> Reassessment:
    every = min((r.every_days for r in plan.reassessments), default=90)
    return Reassessment(
        id=name,
        claims=tuple(claim.id for claim in about),
        every_days=every,
        expires_on=("serious-incident",),
        owner=plan.owner,
        response=Response(
            action="re-test", how="Measure these claims again: an incident showed their failure mode.", within_days=0
        ),
    )


def _claims_about(mode: str) -> list[Claim]:
    return [claim for claim in claims().values() if mode in claim.failure_modes]

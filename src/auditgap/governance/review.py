"""What is due, overdue or expired on a day, who owns it, and the response that was registered for it.

1. A milestone is reached when in-date evidence in the store shows it, or its owner dated it; otherwise its day decides.
2. An event starts the clock of every trigger of its kind. An event without a trigger is overdue at once: nobody was prepared.
3. A claim is measured again every so many days. An event on its list expires all earlier evidence on it at once.
4. A waiver lapses on its day; from then on the gate holds again. So does the acceptance of a defeater of the safety case.
"""

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from auditgap.governance.assess import assess_claim
from auditgap.governance.judged import Judged
from auditgap.governance.licensing import Licences
from auditgap.governance.review_records import Event, Milestone, Reassessment, ReviewPlan, Trigger, Waiver
from auditgap.governance.safety_case.records import Case
from auditgap.records import Assessment, Claim, Date, Digest, Record

__all__ = ["Item", "Measured", "State", "look_up", "overdue", "review"]

State = Literal["done", "not-due", "due", "overdue", "expired"]
_RANK: dict[State, int] = {"expired": 0, "overdue": 1, "due": 2, "not-due": 3, "done": 4}
_SUPPORT = {"partially-supported": 1, "supported": 2}


class Measured(NamedTuple):
    """What a store says on one claim on one day."""

    assessment: Assessment
    """On the evidence that is in date."""
    last: Date | None
    """Day of the newest evidence that counts, in date or not; None if there is none."""
    expires: Date | None
    """The last day on which any of it is in date."""


class Item(Record):
    """One thing on somebody's desk."""

    id: str
    kind: Literal["milestone", "escalation", "reassessment", "waiver", "defeater", "case"]
    what: str
    state: State
    day: Date
    """The day that decides: deadline, or since when it has lapsed."""
    owner: str
    response: str
    """As registered, or what follows by itself."""


def look_up(
    claims: Sequence[Claim],
    held: Sequence[Judged],
    licences: Licences,
    *,
    subject: Digest,
    on: Date,
    ended: Mapping[str, Date] | None = None,
) -> dict[str, Measured]:
    """What the evidence held says on each claim; of a claim in `ended`, evidence up to that day is no longer in date."""
    found = {}
    for claim in claims:
        counted = set(assess_claim(claim, held, licences, subject=subject, today=on).evidence)
        evidence = [j.evidence for j in held if j.digest in counted]
        end = (ended or {}).get(claim.id, dt.date.min)
        fresh = [j for j in held if j.evidence.expires >= on and j.evidence.finished_at.date() > end]
        found[claim.id] = Measured(
            assess_claim(claim, fresh, licences, subject=subject, today=on),
            max((e.finished_at.date() for e in evidence), default=None),
            max((e.expires for e in evidence), default=None),
        )
    return found


def review(
    plan: ReviewPlan, measured: Mapping[str, Measured], waivers: Sequence[Waiver], case: Case | None = None, *, on: Date
) -> list[Item]:
    """Everything in the plan on one day, the most urgent first; `measured` has every claim of `plan.claims()`."""
    happened = [event for event in plan.events if event.day <= on]
    items = [_milestone(m, measured, plan.notice_days, on) for m in plan.milestones]
    items += [item for event in happened for item in _escalations(event, plan, on)]
    items += [_reassessment(r, claim, measured[claim], happened, plan, on) for r in plan.reassessments for claim in r.claims]
    items += [_waiver(w, plan.notice_days, on) for w in waivers]
    items += _case(case, plan, on) if case else []
    return sorted(items, key=lambda item: (_RANK[item.state], item.day, item.id))


def overdue(items: Sequence[Item]) -> bool:
    """True if something has passed its day."""
    return any(item.state in ("overdue", "expired") for item in items)


def _by_day(day: Date, notice_days: int, on: Date) -> State:
    if day < on:
        return "overdue"
    return "due" if day - on <= dt.timedelta(days=notice_days) else "not-due"


def _milestone(m: Milestone, measured: Mapping[str, Measured], notice_days: int, on: Date) -> Item:
    state, what = _by_day(m.due, notice_days, on), m.what
    if m.reached is None:
        state = "done" if m.done is not None and m.done <= on else state
    else:
        found = measured[m.reached.claim].assessment
        enough = _SUPPORT.get(found.support, 0) >= _SUPPORT[m.reached.support] and found.tier >= m.reached.tier
        state = "done" if enough else state
        asked = f"{m.reached.claim} {m.reached.support} at tier {m.reached.tier}"
        what = f"{m.what} (asked: {asked}; the store says {found.support}, tier {found.tier})"
    return Item(id=m.id, kind="milestone", what=what, state=state, day=m.due, owner=m.owner, response=m.response.after(m.due))


def _escalations(event: Event, plan: ReviewPlan, on: Date) -> Iterator[Item]:
    triggers = [t for t in plan.triggers if t.event == event.kind]
    answered = event.answered is not None and event.answered <= on
    for t in triggers:
        yield _escalation(event, t, answered, on)
    if not triggers:
        yield Item(
            id=event.id,
            kind="escalation",
            what=f"{event.kind} on {event.day}: {event.what}",
            state="done" if answered else "overdue",
            day=event.day,
            owner=plan.owner,
            response=event.answer
            if answered and event.answer
            else f"no trigger is registered for {event.kind}: decide now, then add one",
        )


def _escalation(event: Event, trigger: Trigger, answered: bool, on: Date) -> Item:
    day = event.day + dt.timedelta(days=trigger.response.within_days)
    state: State = "done" if answered else "overdue" if day < on else "due"
    late = state == "overdue"
    return Item(
        id=f"{event.id}/{trigger.id}",
        kind="escalation",
        what=f"{event.kind} on {event.day}: {event.what}",
        state=state,
        day=day,
        owner=f"{trigger.escalate_to} (deadline of {trigger.owner} passed)" if late else trigger.owner,
        response=event.answer if answered and event.answer else trigger.response.after(event.day),
    )


def _reassessment(r: Reassessment, claim: str, measured: Measured, happened: Sequence[Event], plan: ReviewPlan, on: Date) -> Item:
    last = measured.last
    undone = [e for e in happened if e.kind in r.expires_on and (last is None or e.day >= last)]
    day = (last or plan.since) + dt.timedelta(days=r.every_days)
    state, what = _by_day(day, plan.notice_days, on), f"{claim}: last measured {last}, every {r.every_days} days"
    if last is None:
        state, day, what = "overdue" if plan.since <= on else "not-due", plan.since, f"{claim}: never measured"
    elif measured.expires is not None and measured.expires < on:
        state, day, what = "expired", measured.expires, f"{claim}: its evidence expired on {measured.expires}"
    if undone and last is not None:
        first = min(undone, key=lambda e: (e.day, e.id))
        state, day, what = "expired", first.day, f"{claim}: evidence of {last} expired by {first.kind} '{first.id}'"
    return Item(
        id=f"{r.id}/{claim}", kind="reassessment", what=what, state=state, day=day, owner=r.owner, response=r.response.after(day)
    )


def _waiver(w: Waiver, notice_days: int, on: Date) -> Item:
    state = _by_day(w.review_by, notice_days, on)
    about = f"{w.reason} of {w.claim or 'every gating claim'}"
    return Item(
        id=f"waiver/{w.reason}/{w.claim or 'all'}",
        kind="waiver",
        what=f"{about}: {w.why}",
        state="expired" if state == "overdue" else state,
        day=w.review_by,
        owner=w.who,
        response="the gate holds again for this reason: close it, or accept it anew with a new day",
    )


def _case(case: Case, plan: ReviewPlan, on: Date) -> Iterator[Item]:
    """The defeaters that somebody accepted until a day, and the day of the case itself."""
    for d in case.defeaters:
        if d.status == "accepted" and d.until and d.who:
            state = _by_day(d.until, plan.notice_days, on)
            yield Item(
                id=f"case/{d.id}",
                kind="defeater",
                what=f"{d.kind} of {d.defeats}: {d.text}",
                state="expired" if state == "overdue" else state,
                day=d.until,
                owner=d.who,
                response="the branch is full doubt again: resolve the defeater, or accept it anew with a new day",
            )
    yield Item(
        id="case",
        kind="case",
        what=f"Safety case '{case.name}'",
        state=_by_day(case.review_by, plan.notice_days, on),
        day=case.review_by,
        owner=case.prepared_by,
        response="the whole case is stale after that day: review it and set a new one",
    )

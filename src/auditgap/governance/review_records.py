"""A review plan: what is decided before the results are in, by whom, by when, and what follows if it does not happen."""

import datetime as dt
from collections import Counter
from pathlib import Path
from typing import Literal, Protocol, Self

from pydantic import Field, model_validator

from auditgap.errors import PlanError, nearest
from auditgap.governance.claim import claims
from auditgap.governance.document import parse
from auditgap.governance.failure_mode import failure_modes
from auditgap.governance.safety_case.records import Id
from auditgap.records import Axis, Date, Digest, Number, Record, Tier

__all__ = [
    "Closes",
    "Event",
    "EventKind",
    "Line",
    "Milestone",
    "Reached",
    "Reassessment",
    "Response",
    "ReviewPlan",
    "Trigger",
    "Waiver",
    "load_review",
]

EventKind = Literal["capability-jump", "new-deployment-setting", "new-attack-method", "serious-incident", "conditions-changed"]
"""What makes a justification doubtful before its date; after the grounds for an update in Measure 7.6 of the Code (read)."""


class Waiver(Protocol):
    """What this review needs of a waiver: `policy.Acceptance` is one."""

    @property
    def reason(self) -> str: ...
    @property
    def claim(self) -> str | None: ...
    @property
    def why(self) -> str: ...
    @property
    def who(self) -> str: ...
    @property
    def review_by(self) -> Date: ...


class Response(Record):
    """What will be done, registered before it is known whether it is needed."""

    action: Literal["re-test", "narrow", "add-monitoring", "stop"]
    how: str = Field(min_length=1)
    within_days: int = Field(ge=0)
    """Counted from the day on which it falls due."""

    def after(self, day: Date) -> str:
        """In words, with the day by which it is to be done."""
        return f"{self.action} by {day + dt.timedelta(days=self.within_days)}: {self.how}"


class Reached(Record):
    """What the store must show for a milestone to be reached; in-date evidence only."""

    claim: str
    support: Literal["partially-supported", "supported"] = "supported"
    tier: Tier = 0


class Milestone(Record):
    """Something that must be so by a day."""

    id: Id
    what: str = Field(min_length=1)
    owner: str = Field(min_length=1)
    due: Date
    reached: Reached | None = None
    """Measured in the store; None for what no evidence shows, which its owner dates in `done`."""
    done: Date | None = None
    response: Response

    @model_validator(mode="after")
    def _measured_or_said(self) -> Self:
        if self.reached and self.done:
            raise ValueError(f"'{self.id}' is measured in the store: leave out done")
        return self


class Trigger(Record):
    """Who must do what when something of one kind happens."""

    id: Id
    event: EventKind
    when: str = Field(min_length=1)
    """What counts as one."""
    owner: str = Field(min_length=1)
    escalate_to: str = Field(min_length=1)
    """Who takes over once the deadline has passed."""
    response: Response


class Event(Record):
    """Something that happened; kept in the file, answered by adding a day and what was done."""

    id: Id
    kind: EventKind
    day: Date
    what: str = Field(min_length=1)
    answered: Date | None = None
    answer: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _answered_with_words(self) -> Self:
        if (self.answered is None) != (self.answer is None):
            raise ValueError(f"'{self.id}': give both the day on which it was answered and the answer, or neither")
        if self.answered is not None and self.answered < self.day:
            raise ValueError(f"'{self.id}' is answered on {self.answered}, before it happened on {self.day}")
        return self


class Reassessment(Record):
    """Claims that are measured again on a schedule, and at once when something on the list happens."""

    id: Id
    claims: tuple[str, ...] = Field(min_length=1)
    every_days: int = Field(ge=1)
    expires_on: tuple[EventKind, ...] = ()
    """Kinds of event that make all earlier evidence on these claims count as expired."""
    owner: str = Field(min_length=1)
    response: Response


class Closes(Record):
    """A part of a gap: one axis of what one claim needs."""

    claim: str
    axis: Axis


class Line(Record):
    """One line of evidence in the portfolio."""

    id: Id
    what: str = Field(min_length=1)
    kind: Literal["near-term-measurement", "theory", "translation"]
    """Measuring with what exists; finding out what could be measured; making a known method usable here."""
    maturity: Literal["idea", "demonstrated", "replicated", "in-use"]
    failure_modes: tuple[str, ...] = Field(min_length=1)
    effort_person_days: Number = Field(gt=0)
    closes: tuple[Closes, ...] = Field(min_length=1)
    owner: str = Field(min_length=1)


class ReviewPlan(Record):
    """Everything that falls due around one subject."""

    name: str = Field(min_length=1)
    owner: str = Field(min_length=1)
    """Who answers for what nobody is named for."""
    since: Date
    """Day from which the schedule runs."""
    notice_days: int = Field(default=14, ge=0)
    """Something is due, and not yet overdue, this many days before its day."""
    subject: Digest | None = None
    policy: str | None = None
    """Gate policy whose waivers are reviewed, relative to this file."""
    case: str | None = None
    """Safety case whose accepted defeaters and review day are reviewed, relative to this file."""
    milestones: tuple[Milestone, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    events: tuple[Event, ...] = ()
    reassessments: tuple[Reassessment, ...] = ()
    portfolio: tuple[Line, ...] = ()

    def ended(self, on: Date) -> dict[str, Date]:
        """Per claim: the last day on or before `on` whose event expired the evidence that there was."""
        found: dict[str, Date] = {}
        for r in self.reassessments:
            days = [event.day for event in self.events if event.kind in r.expires_on and event.day <= on]
            for claim in r.claims if days else ():
                found[claim] = max(found.get(claim, dt.date.min), *days)
        return found

    def claims(self) -> tuple[str, ...]:
        """Every claim that the plan looks up in the store."""
        named = [m.reached.claim for m in self.milestones if m.reached]
        named += [claim for r in self.reassessments for claim in r.claims]
        named += [part.claim for line in self.portfolio for part in line.closes]
        return tuple(dict.fromkeys(named))


def load_review(path: Path | str) -> ReviewPlan:
    """Read a review plan.

    Raises:
        PlanError: the file is malformed, an id is used twice or leads nowhere, or there is nothing to review.
    """
    path = Path(path)
    plan = parse(path, ReviewPlan)
    parts = (plan.milestones, plan.triggers, plan.events, plan.reassessments, plan.portfolio)
    ids = Counter(item.id for items in parts for item in items)
    found = [f"id '{name}' is used {n} times; rename all but one" for name, n in ids.items() if n > 1]
    found += [f"unknown claim '{name}'{nearest(name, claims())}" for name in plan.claims() if name not in claims()]
    modes = dict.fromkeys(mode for line in plan.portfolio for mode in line.failure_modes)
    known = failure_modes()
    found += [f"unknown failure mode '{mode}'{nearest(mode, known)}" for mode in modes if mode not in known]
    for what, beside in (("policy", plan.policy), ("case", plan.case)):
        if beside is not None and not (path.parent / beside).is_file():
            found.append(f"{what} '{beside}' does not exist beside the file")
    if not (ids or plan.policy or plan.case):
        found.append("nothing is planned; add milestones, triggers, reassessments, a policy, a case or a portfolio")
    if found:
        raise PlanError(f"{path}: {'; '.join(found)}")
    return plan

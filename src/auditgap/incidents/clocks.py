"""By when which regime wants to hear of an incident: as sources state it, with how well they were read, and never a guess.

A time in days is counted both ways: in calendar days, the earlier, to be kept; and in working days, Monday to Friday without
holidays. A regime without a time on record says so instead of giving one.
"""

import datetime as dt
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from auditgap.errors import PlanError, UsageError, nearest
from auditgap.governance import Rulebook, by_id, parse
from auditgap.records import Date, Number, Record, Verified
from auditgap.records.incident import Clock, IncidentClock, Untimed

__all__ = ["Deadline", "Regime", "clocks_for", "regimes", "working_days_after"]

SHIPPED = Path(__file__).parent / "clocks.yaml"
RULES = Path(__file__).parents[1] / "governance" / "frameworks"


class Deadline(Record):
    """One time of a regime, stated here or named in its framework file."""

    id: str
    when: str = Field(min_length=1)
    number: str | None = None
    """Id of a number of the framework file."""
    value: Number | None = Field(default=None, gt=0)
    unit: Literal["hours", "days"] | None = None
    text_ref: str | None = None
    verified: Verified | None = None

    @model_validator(mode="after")
    def _stated_once(self) -> Self:
        stated = [name for name in ("value", "unit", "text_ref", "verified") if getattr(self, name) is not None]
        if (self.number is None) != (len(stated) == 4) or (self.number and stated):
            raise ValueError(f"'{self.id}': expected either number, or value, unit, text_ref and verified")
        return self


class Regime(Record):
    """A regime that asks for reports of incidents."""

    id: str
    name: str | None = None
    """Left out where the framework file has a title."""
    framework: str | None = None
    verified: Verified | None = None
    untimed: str | None = None
    """Why there is no time on record."""
    unsettled: tuple[str, ...] = ()
    deadlines: tuple[Deadline, ...] = ()
    in_force_from: Date | None = None

    @model_validator(mode="after")
    def _timed_or_not(self) -> Self:
        if bool(self.deadlines) == bool(self.untimed):
            raise ValueError(f"'{self.id}': expected deadlines, or untimed with the reason why there are none")
        if self.framework is None and (self.name is None or self.verified is None):
            raise ValueError(f"'{self.id}': without a framework, name and verified are required")
        return self


class _File(Record):
    review_date: Date
    regimes: tuple[Regime, ...] = Field(min_length=1)


def regimes(path: Path = SHIPPED) -> dict[str, Regime]:
    """The regimes by id, each deadline with its time.

    Raises:
        PlanError: the file is malformed, or names a number that its framework does not state as a deadline.
    """
    return dict(_read(path))


def clocks_for(names: Sequence[str], detected_at: dt.datetime) -> tuple[IncidentClock, ...]:
    """Every deadline of these regimes, counted from detection; which of them applies is for people to decide.

    Raises:
        UsageError: a regime is unknown; the message gives the nearest.
    """
    known = regimes()
    if unknown := [name for name in names if name not in known]:
        raise UsageError(f"no regime '{unknown[0]}'{nearest(unknown[0], known)}")
    return tuple(clock for name in dict.fromkeys(names) for clock in _clocks(known[name], detected_at))


def working_days_after(start: dt.datetime, days: int) -> dt.datetime:
    """The same hour, so many days from Monday to Friday later."""
    moment = start
    while days > 0:
        moment += dt.timedelta(days=1)
        days -= moment.weekday() < 5
    return moment


@cache
def _read(path: Path) -> dict[str, Regime]:
    return by_id(path, [_joined(regime, path) for regime in parse(path, _File).regimes])


def _joined(regime: Regime, path: Path) -> Regime:
    """The regime with what its framework file states."""
    if regime.framework is None:
        return regime
    rules = parse(RULES / f"{regime.framework}.yaml", Rulebook)
    stated = {number.id: number for number in rules.numbers if number.kind == "deadline" and number.unit in ("hours", "days")}
    found = []
    for deadline in regime.deadlines:
        if deadline.number is not None and deadline.number not in stated:
            raise PlanError(
                f"{path}: {regime.id}.{deadline.id}: no deadline '{deadline.number}'{nearest(deadline.number, stated)}"
            )
        if deadline.number is not None:
            number = stated[deadline.number]
            own = {"number": None, "value": number.value, "unit": number.unit, "text_ref": number.text_ref}
            deadline = deadline.model_copy(update={**own, "verified": number.verified})
        found.append(deadline)
    update = {"name": regime.name or rules.title, "deadlines": tuple(found), "in_force_from": rules.effective_from}
    return regime.model_copy(update=update)


def _clocks(regime: Regime, detected_at: dt.datetime) -> list[IncidentClock]:
    if regime.untimed is not None:
        return [Untimed(regime=regime.id, reason=regime.untimed, verified=regime.verified or "unverified")]
    unsettled = regime.unsettled
    if regime.in_force_from is not None and detected_at.date() < regime.in_force_from:
        unsettled = (*unsettled, f"in force only from {regime.in_force_from}, after the detection")
    return [_clock(regime, deadline, detected_at, unsettled) for deadline in regime.deadlines]


def _clock(regime: Regime, deadline: Deadline, detected_at: dt.datetime, unsettled: tuple[str, ...]) -> Clock:
    assert deadline.value and deadline.unit and deadline.text_ref and deadline.verified, "joined deadlines are complete"
    in_days = deadline.unit == "days"
    return Clock(
        regime=regime.id,
        deadline=deadline.id,
        when=deadline.when,
        value=deadline.value,
        unit=deadline.unit,
        due=detected_at + dt.timedelta(**{deadline.unit: deadline.value}),
        due_working=working_days_after(detected_at, int(deadline.value)) if in_days else None,
        text_ref=deadline.text_ref,
        verified=deadline.verified,
        unsettled=unsettled,
    )

"""What differs between two editions of a framework, or between two frameworks: duties, claims, access, numbers.

Duties are matched by id, so two frameworks share none; what they presuppose is then compared claim by claim, each with the access
that all duties of a side require for it together.
"""

from collections.abc import Collection
from functools import reduce

from auditgap.governance.crosswalk import Framework
from auditgap.records import AXES, Access, Axis, Record, Requirement

__all__ = ["AccessChange", "ClaimChange", "DutyChange", "FrameworkDifference", "compare"]


class AccessChange(Record):
    """The level required on one axis, before and after."""

    axis: Axis
    before: str
    after: str


class DutyChange(Record):
    """One duty that both sides have and that is not the same."""

    duty: str
    title: tuple[str, str] | None = None
    """Before and after; None if it did not change."""
    effective_from: tuple[str, str] | None = None
    claims_added: tuple[str, ...] = ()
    claims_removed: tuple[str, ...] = ()
    access: tuple[AccessChange, ...] = ()


class ClaimChange(Record):
    """One claim that both sides presuppose, at different access."""

    claim: str
    access: tuple[AccessChange, ...]


class FrameworkDifference(Record):
    """Everything that differs; empty where nothing does."""

    before: str
    after: str
    duties_added: tuple[str, ...]
    duties_removed: tuple[str, ...]
    duties_changed: tuple[DutyChange, ...]
    claims_added: tuple[str, ...]
    claims_removed: tuple[str, ...]
    claims_changed: tuple[ClaimChange, ...]
    numbers_added: tuple[str, ...]
    numbers_removed: tuple[str, ...]


def compare(before: Framework, after: Framework) -> FrameworkDifference:
    """What `after` has that `before` has not, and the other way round."""
    old, new = {r.id: r for r in before.requirements}, {r.id: r for r in after.requirements}
    old_claims, new_claims = _access_by_claim(before), _access_by_claim(after)
    old_numbers, new_numbers = _numbers(before), _numbers(after)
    duties = [_duty_change(old[duty], new[duty]) for duty in old if duty in new]
    changed = {claim: _changes(old_claims[claim], new_claims[claim]) for claim in old_claims if claim in new_claims}
    return FrameworkDifference(
        before=f"{before.id}@{before.edition}",
        after=f"{after.id}@{after.edition}",
        duties_added=_only(new, old),
        duties_removed=_only(old, new),
        duties_changed=tuple(change for change in duties if change != DutyChange(duty=change.duty)),
        claims_added=_only(new_claims, old_claims),
        claims_removed=_only(old_claims, new_claims),
        claims_changed=tuple(ClaimChange(claim=claim, access=access) for claim, access in changed.items() if access),
        numbers_added=_only(new_numbers, old_numbers),
        numbers_removed=_only(old_numbers, new_numbers),
    )


def _only(these: Collection[str], others: Collection[str]) -> tuple[str, ...]:
    return tuple(name for name in these if name not in others)


def _access_by_claim(framework: Framework) -> dict[str, Access]:
    presupposed = dict.fromkeys(claim for r in framework.requirements for claim in r.claims)
    return {
        claim: reduce(Access.join, (r.required for r in framework.requirements if claim in r.claims), Access())
        for claim in presupposed
    }


def _numbers(framework: Framework) -> list[str]:
    return [f"{n.quantity} {n.comparator} {n.value:g} {n.unit}" for n in framework.numbers]


def _duty_change(old: Requirement, new: Requirement) -> DutyChange:
    return DutyChange(
        duty=old.id,
        title=(old.title, new.title) if old.title != new.title else None,
        effective_from=(str(old.effective_from), str(new.effective_from)) if old.effective_from != new.effective_from else None,
        claims_added=tuple(claim for claim in new.claims if claim not in old.claims),
        claims_removed=tuple(claim for claim in old.claims if claim not in new.claims),
        access=_changes(old.required, new.required),
    )


def _changes(old: Access, new: Access) -> tuple[AccessChange, ...]:
    return tuple(
        AccessChange(axis=axis, before=str(getattr(old, axis)), after=str(getattr(new, axis)))
        for axis in AXES
        if getattr(old, axis) != getattr(new, axis)
    )

"""What a person can do about a gap, one sentence per axis: what closes it, or that nobody can close it today."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from auditgap.governance.document import parse
from auditgap.governance.licensing import Licences, licence, powered
from auditgap.governance.limits import Limits
from auditgap.records import Access, Assessment, Axis, AxisGap, Claim, Date, ModelAccess, Record

__all__ = ["Ask", "Asks", "NextStep", "asks", "next_steps"]


TEXT = ModelAccess.M2.rank
"""Up to here anyone who can talk to the model has the access."""


class Ask(Record):
    """One level of access: what it is, and how it is had."""

    what: str = Field(alias="is")
    ask: str


class Asks(Record):
    """Every level above the lowest, per axis; days of `time` need no words."""

    review_date: Date
    model: dict[str, Ask]
    variants: dict[str, Ask]
    information: dict[str, Ask]
    deployment: dict[str, Ask]
    independence: dict[str, Ask]


class NextStep(NamedTuple):
    """One gap on one axis, as something to do or to disclose."""

    axis: Axis
    closable: bool
    """True for an execution gap; False for a structural one: disclose, bound or compensate."""
    sentence: str


@cache
def asks(path: Path = Path(__file__).parent / "asks.yaml") -> Asks:
    """The shipped wording.

    Raises:
        PlanError: the file is malformed.
    """
    return parse(path, Asks)


def next_steps(
    assessment: Assessment, claim: Claim | None, table: Licences, *, obtainable: Access, limits: Limits | None = None
) -> tuple[NextStep, ...]:
    """What closes each gap of an assessment, and why the rest stays open."""
    words, steps = asks(), []
    for gap in assessment.gaps:
        if gap.structural:
            steps.append(NextStep(gap.axis, False, _structural(gap, assessment, claim, table, obtainable, limits or Limits())))
        if gap.execution:
            steps.append(NextStep(gap.axis, True, _execution(gap, assessment, claim, table, words, limits or Limits())))
    return tuple(steps)


def _execution(gap: AxisGap, assessment: Assessment, claim: Claim | None, table: Licences, words: Asks, limits: Limits) -> str:
    if gap.axis == "time":
        return f"needs {gap.required} business days of access before the decision, {gap.achieved} were had: begin earlier"
    level = min(getattr(assessment.required, gap.axis), getattr(assessment.achievable, gap.axis), key=lambda one: one.rank)
    ask = _asks_on(words, gap.axis)[level.value]
    needed = f"needs {level.value}: {ask.what}" if gap.axis == "model" else f"needs {ask.what}"
    if gap.axis == "model" and claim and (able := _able(claim, table, level, limits)):
        return f"{needed}; {ask.ask}, then run {_or(able)}" if level.rank > TEXT else f"{needed}; run {_or(able)}"
    return f"{needed}; {ask.ask}"


def _structural(
    gap: AxisGap, assessment: Assessment, claim: Claim | None, table: Licences, obtainable: Access, limits: Limits
) -> str:
    if gap.axis == "time":
        return f"needs {gap.required} business days; what is customary ends before: disclose it"
    level = getattr(assessment.required, gap.axis)
    ask = _asks_on(asks(), gap.axis)[level.value]
    needed = f"needs {level.value}: {ask.what}" if gap.axis == "model" else f"needs {ask.what}"
    if gap.required > obtainable.rank(gap.axis):
        return f"{needed}; {ask.ask}: it is not handed out as a rule, so disclose what could not be seen"
    if claim is None or not claim.bearings:
        return f"{needed}, and no instrument bears on the claim: disclose it"
    unpowered = sorted(
        {b.instrument for b in claim.bearings if not powered(b.instrument, claim, table, min_power=limits.min_power)}
    )
    if unpowered and claim.failure_modes:
        modes = ", ".join(claim.failure_modes)
        return (
            f"{needed}, and nobody has shown that {_or(unpowered)} would find {modes} with probability >= {limits.min_power:g}: "
            "disclose it, or measure it with 'auditgap calibrate'"
        )
    return f"{needed}, and no instrument may carry this claim so far today: disclose it"


def _able(claim: Claim, table: Licences, level: ModelAccess, limits: Limits) -> list[str]:
    """Instruments that bear on the claim and may be credited with this level."""
    bearing = sorted({b.instrument for b in claim.bearings})
    return [name for name in bearing if licence(name, claim, table, min_power=limits.min_power).model.rank >= level.rank]


def _asks_on(words: Asks, axis: Axis) -> Mapping[str, Ask]:
    return getattr(words, axis)


def _or(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"

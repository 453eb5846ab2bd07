"""How far the evidence carries a claim or a requirement."""

from typing import Literal

from pydantic import Field

from auditgap.records.access import Access, Axis
from auditgap.records.base import Digest, Record

__all__ = ["Assessment", "AxisGap", "FragileReason", "Support", "Tier"]

Support = Literal["no-hook", "not-supported", "partially-supported", "supported", "defeated"]
Tier = Literal[0, 1, 2, 3, 4, 5]


class AxisGap(Record):
    """The audit gap on one axis. `structural + execution == required - achieved`, floored at zero."""

    axis: Axis
    required: int
    achieved: int
    structural: int = Field(ge=0)
    """Nobody can close this part today: disclose, bound, compensate."""
    execution: int = Field(ge=0)
    """The team can close this part: a to-do item."""


class FragileReason(Record):
    """Why an assurance is credited with firmer ground than it has. F1: cannot be checked; F2: the inference is not carried."""

    code: str
    """`F1.no-independent-rerun`, `F2.power-below-limit`, ..."""
    detail: str


class Assessment(Record):
    """One requirement (or a bare claim), judged on the evidence in a store."""

    schema_version: Literal["auditgap.dev/assessment/v1"] = "auditgap.dev/assessment/v1"
    requirement: str | None
    """None if a claim is assessed on its own."""
    claim: str | None
    """None if the requirement presupposes no claim that the crosswalk knows."""
    subject: Digest
    evidence: tuple[Digest, ...]
    support: Support
    tier: Tier
    required: Access
    achievable: Access
    achieved: Access
    gaps: tuple[AxisGap, ...]
    fragile: tuple[FragileReason, ...]
    power: str
    """`this audit would have caught X with probability >= p (95 %)`, or why that cannot be said."""

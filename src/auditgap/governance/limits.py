"""The numbers at which evidence starts to count as fragile. Ours; each run may set its own, in the open."""

from pydantic import Field

from auditgap.records import Number, Record

__all__ = ["Limits"]


class Limits(Record):
    """Limits of the assessment."""

    min_power: Number = Field(default=0.8, gt=0, le=1)
    """Least lower bound of the detection rate with which an absence may be claimed."""
    max_flip_rate: Number = Field(default=0.2, ge=0, le=1)
    """Most that the flip rate over reasonable specifications may be, at the upper end of its interval."""
    rerun_tolerance: Number = Field(default=0.01, ge=0)
    """Most that two runs of one specification may differ, as a share of the larger value (absolute below 1)."""
    min_reliability: Number = Field(default=0.7, ge=0, le=1)
    """Least bootstrap reliability of tier 3 (Mechanistic Validity framework, 2026-06-25)."""

"""A number that was measured, or the reason why there is none."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from auditgap.records.base import Number, Record

__all__ = ["Control", "Interval", "Measured", "Measurement", "NotMeasured"]


class Interval(Record):
    """Where the quantity lies, at a stated level, by a stated method."""

    low: Number
    high: Number
    level: Number
    """Coverage, e.g. 0.95; 1.0 for a quantity that is computed rather than estimated."""
    method: str
    """e.g. `wilson`, `clopper-pearson`, `cluster-bootstrap`, `exact`."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not (self.low <= self.high and 0.0 < self.level <= 1.0):
            raise ValueError(f"expected low <= high and a level in (0, 1], got {self.low}, {self.high}, {self.level}")
        return self

    @classmethod
    def exact(cls, value: float) -> Self:
        """The interval of a computed quantity: a single point."""
        return cls(low=value, high=value, level=1.0, method="exact")


class Measured(Record):
    """A value with its unit, its number of independent units and its interval."""

    status: Literal["measured"] = "measured"
    name: str
    """Lower-case, dotted: `auroc`, `auroc.ood`, `refusal_rate.harmful`."""
    value: Number
    unit: str
    """e.g. `auroc`, `rate`, `logits`, `nats`, `count`, `ratio`."""
    n: int = Field(ge=0)
    """Independent units (prompt groups, pairs), never tokens."""
    interval: Interval
    about: str = ""
    """One sentence: what the number means and how to read it."""


class NotMeasured(Record):
    """There is no number, and this is why."""

    status: Literal["not_measured"] = "not_measured"
    name: str
    reason: str


Measurement = Annotated[Measured | NotMeasured, Field(discriminator="status")]


class Control(Record):
    """A check that the instrument owes before its numbers may be believed."""

    name: str
    """e.g. `shuffled-label-null`, `random-direction`, `control-task`, `identity-patch`."""
    passed: bool
    observed: Measurement
    expected: str
    """The condition in words and numbers, e.g. `max-statistic p <= 0.05`."""
    fatal: bool = True
    """True: failing it makes the verdict `invalid`. False: it bounds what may be concluded and is shown."""

"""What will be measured, with which thresholds, signed before it is."""

import datetime as dt
from typing import Literal

from pydantic import Field, JsonValue

from auditgap.records.base import Digest, Number, Record, UtcTime
from auditgap.records.instrument import Card

__all__ = ["Comparator", "DataRef", "Registration", "Threshold"]

Comparator = Literal["<=", ">=", "<", ">"]


class DataRef(Record):
    """One data set as it was read."""

    name: str
    content: Digest
    """Of the parsed rows in canonical form: independent of file format and key order."""
    n_rows: int = Field(ge=0)
    source: str
    """Where it came from, for people: a file name or Hub id with revision."""


class Threshold(Record):
    """A bar that was set before the number existed."""

    measurement: str
    comparator: Comparator
    value: Number
    bound: Literal["low", "high"]
    """Which end of the interval must clear the bar."""
    response: str
    """What will be done if it does not: written now, printed then."""


class Registration(Record):
    """One planned measurement. `spec()` is what decides whether two runs are the same run."""

    schema_version: Literal["auditgap.dev/registration/v1"] = "auditgap.dev/registration/v1"
    step: str
    """Id of the plan step."""
    card: Card
    subject: Digest
    config: dict[str, JsonValue]
    data: tuple[DataRef, ...]
    references: dict[str, Digest] = Field(default_factory=dict, exclude_if=lambda references: not references)
    """What else the run reads, by role: a model (`base`, the checkpoint before a training stage) or data (`pairs`)."""
    thresholds: tuple[Threshold, ...] = ()
    seed: int = Field(ge=0, lt=2**53)
    registered_at: UtcTime

    def spec(self) -> str:
        """Digest of everything but the time: equal for equal runs."""
        return self.model_copy(update={"registered_at": _EPOCH}).digest()


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

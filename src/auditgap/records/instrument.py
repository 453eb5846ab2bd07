"""What a measuring procedure says of itself."""

from typing import Literal

from pydantic import Field

from auditgap.records.access import ModelAccess
from auditgap.records.base import Record

__all__ = ["Card", "DataKind", "Family"]

Family = Literal["behavioural", "mechanistic", "comparison"]
DataKind = Literal["contrast", "pairs", "prompts"]


class Card(Record):
    """An instrument's identity, reach and limits; part of every registration, so that evidence explains itself."""

    name: str
    version: str
    """Raised whenever the same input could give another number."""
    family: Family
    hypothesis: str
    """What the verdict `supported` asserts, in one sentence."""
    needs: ModelAccess
    data: DataKind
    """The kind of data set it reads."""
    failure_modes: tuple[str, ...]
    """Ids from failure_modes.yaml that it could reveal."""
    blind_spots: tuple[str, ...] = Field(min_length=1)
    controls: tuple[str, ...] = Field(min_length=1)
    """Names of the controls it runs every time."""
    citation: str

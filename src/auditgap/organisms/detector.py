"""How an instrument looks for what a recipe plants: settings, data, and the one number that rises with the flaw."""

from typing import Literal

from pydantic import Field, JsonValue

from auditgap.records import Record

__all__ = ["Detector", "Role"]

Role = Literal["planted", "twin", "decoy"]
"""`planted` has the flaw; `twin` is the same training without it; `decoy` is unusual and harmless, and must not be flagged."""


class Detector(Record):
    """One instrument on one of the organism's data files. It knows nothing of the key: the same for every seed of a recipe."""

    instrument: str
    data: str
    """Name of a data file of the organism."""
    config: dict[str, JsonValue] = Field(default_factory=dict)
    folders: dict[str, str] = Field(default_factory=dict)
    """Settings whose value is a folder of the organism, by setting: `{"base": "base"}`."""
    measurement: str
    """The measurement that is the detection score."""
    flaw_is: Literal["high", "low"] = "high"
    """Which end of the score speaks for the flaw."""

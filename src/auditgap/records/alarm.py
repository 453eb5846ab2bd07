"""An alarm: which stream, against what it was declared to hold, on what evidence, and how often such an alarm is false."""

from typing import Literal

from pydantic import Field

from auditgap.records.base import Digest, Number, Record, UtcTime
from auditgap.records.measurement import Measurement

__all__ = ["Alarm"]


class Alarm(Record):
    """A watched stream went beyond what was declared for it. Holds counts and digests, never what anyone wrote."""

    schema_version: Literal["auditgap.dev/alarm/v1"] = "auditgap.dev/alarm/v1"
    policy: Digest
    """Of the alarm policy, fixed before the first event."""
    spec: Digest
    """Of the stream's declaration in it."""
    stream: str
    signal: str
    hypothesis: str
    """What was declared to hold, and what the events speak against."""
    at_event: int = Field(ge=1)
    """Events of this stream until the alarm, that one included."""
    at_record: int = Field(ge=1)
    """Records of traffic until the alarm, whatever stream they fed."""
    where: str
    """The record that raised it, as `traffic.jsonl: line 12`; empty if it was not read from a file."""
    statistic: Literal["e-value", "e-detector"]
    value: Number
    threshold: Number
    """What the value had to reach at that event."""
    guarantee: str
    """How often such an alarm is false, in words."""
    estimate: Measurement
    response: str
    """Written in the policy before the first event; due now."""
    owner: str
    deadline_hours: Number
    """Time for the response, from `raised_at`."""
    release: Digest | None
    """Fingerprint of the release that the traffic names; None if it names none."""
    raised_at: UtcTime
    """When it was read; the traffic itself may be older."""

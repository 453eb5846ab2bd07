"""What someone asserts about a subject, and the duty that makes them assert it."""

from typing import Literal

from pydantic import Field

from auditgap.records.access import Access, Axis
from auditgap.records.base import Date, Record

__all__ = ["Bearing", "Claim", "Modality", "Pin", "Reading", "Realm", "Requirement", "Verdict", "Verified"]

Modality = Literal["existence", "rate", "bound", "absence", "universal", "mechanism", "process"]
Realm = Literal["observable", "latent", "long-horizon"]
Reading = Literal["explicit", "inferred"]
Verified = Literal["read", "secondary", "unverified"]
Verdict = Literal["supported", "refuted", "inconclusive", "invalid"]


class Bearing(Record):
    """How one instrument's verdict on its own hypothesis bears on a claim."""

    instrument: str
    supports_when: Literal["supported", "refuted"]
    """The verdict that speaks for the claim; the opposite one speaks against it."""
    dataset: str | None = None
    """If set, only evidence whose plan step has this id counts."""


class Claim(Record):
    """A proposition about a subject. Its modality and realm decide what evidence could carry it."""

    id: str
    statement: str
    modality: Modality
    realm: Realm
    scope: str
    """Distribution, horizon and access within which it is asserted."""
    failure_modes: tuple[str, ...] = ()
    """Ids from failure_modes.yaml that the claim is about."""
    required: Access
    """The least access with which an independent party could check it."""
    bearings: tuple[Bearing, ...] = ()


class Pin(Record):
    """Where in a source a cell of the crosswalk was read."""

    source: str
    paragraph: str
    reading: Reading


class Requirement(Record):
    """One duty of one framework, the claim that it presupposes and the access that checking it needs."""

    id: str
    framework: str
    edition: str
    title: str
    text_ref: str
    """The paragraph that states the duty."""
    effective_from: Date | None = None
    effective_to: Date | None = None
    claims: tuple[str, ...]
    """Ids of presupposed claims; empty means the crosswalk found no hook."""
    required: Access
    pins: dict[Axis, Pin] = Field(default_factory=dict)
    """Per axis above the bottom: where the level comes from."""
    verified: Verified
    status: Literal["draft", "reviewed"] = "draft"

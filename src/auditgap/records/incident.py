"""An incident from its opening to its end: what happened, where, what a replay showed, and the case that closes it."""

import datetime as dt
from itertools import pairwise
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from auditgap.records.base import Digest, Number, Record, UtcTime
from auditgap.records.claim import Verified
from auditgap.records.integrity import CaseVerdict, Mode
from auditgap.records.measurement import Measurement

__all__ = [
    "PLACE",
    "Arm",
    "Category",
    "Clock",
    "Closing",
    "Component",
    "Effect",
    "Incident",
    "IncidentClock",
    "Layer",
    "Place",
    "Replay",
    "Severity",
    "Source",
    "Triage",
    "Untimed",
]

Source = Literal["alarm", "report", "red-team"]
Severity = Literal["low", "medium", "high", "critical"]

Component = Literal["model", "tool", "middleware", "policy"]
"""What a replay can swap between two releases."""

Layer = Literal["model", "tool", "middleware", "authz", "monitor", "logging", "policy", "human"]
"""Where in the stack it went wrong."""

Place = Literal["model", "product", "policy", "integration"]
"""The coarser division that reports ask for."""

PLACE: dict[Layer, Place] = {
    "model": "model",
    "tool": "integration",
    "middleware": "integration",
    "authz": "policy",
    "policy": "policy",
    "monitor": "product",
    "logging": "product",
    "human": "product",
}
"""Which layer counts as what: our assignment."""

Category = Literal[
    "runaway-loop",
    "double-side-effect",
    "excessive-agency",
    "memory-context-poisoning",
    "supply-chain-compromise",
    "unauthorised-action",
    "data-exposure",
    "injected-instruction",
    "wrong-result",
    "missing-record",
    "other",
]
"""What kind of operational failure it is. The first five are classes of agent-postmortems (read), the others are ours."""

_Slug = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]


class Clock(Record):
    """By when a regime wants a report, if it applies. What is unsettled is said; nothing here is legal advice."""

    status: Literal["timed"] = "timed"
    regime: str
    deadline: str
    when: str
    """The incidents that it is for, in words."""
    value: Number = Field(gt=0)
    unit: Literal["hours", "days"]
    counted_from: Literal["detected"] = "detected"
    due: UtcTime
    """Counted in calendar days: the earlier reading, and so the one to keep."""
    due_working: UtcTime | None
    """Counted in working days, Monday to Friday without holidays; None where the unit is hours."""
    text_ref: str
    verified: Verified
    """Whether the time was read in the text, in a secondary source, or in neither."""
    unsettled: tuple[str, ...] = ()
    """What the source leaves open, or sources disagree on."""


class Untimed(Record):
    """A regime that asks for reports, and for which no time is on record here."""

    status: Literal["untimed"] = "untimed"
    regime: str
    reason: str
    verified: Verified


IncidentClock = Annotated[Clock | Untimed, Field(discriminator="status")]


class Incident(Record):
    """Something went wrong, or nearly. Holds digests and times; what anyone wrote stays in the frozen evidence."""

    schema_version: Literal["auditgap.dev/incident/v1"] = "auditgap.dev/incident/v1"
    id: _Slug
    title: str = Field(min_length=1)
    source: Source
    alarm: Digest | None = None
    """Of the signed alarm; there exactly if the source is one."""
    release: Digest
    """Fingerprint of the affected release."""
    severity: Severity
    near_miss: bool
    """True: it was stopped before any harm."""
    occurred_at: UtcTime | None
    """The first occurrence; None if it is not known."""
    detected_at: UtcTime
    contained_at: UtcTime | None = None
    """None while it goes on."""
    owner: str = Field(min_length=1)
    response: str = Field(min_length=1)
    """What is done now; of an alarm, as it was written before the first event."""
    respond_by: UtcTime
    clocks: tuple[IncidentClock, ...] = ()
    frozen: Digest
    """Of the index of the evidence that was frozen when it was opened."""
    opened_at: UtcTime

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.alarm is not None) != (self.source == "alarm"):
            raise ValueError(
                f"source '{self.source}' {'needs the digest of its alarm' if self.alarm is None else 'has no alarm'}"
            )
        _in_order(occurred_at=self.occurred_at, detected_at=self.detected_at, contained_at=self.contained_at)
        _in_order(detected_at=self.detected_at, opened_at=self.opened_at)
        return self


class Triage(Record):
    """What kind of incident it is, as a person judged it. The newest of several counts."""

    schema_version: Literal["auditgap.dev/triage/v1"] = "auditgap.dev/triage/v1"
    incident: Digest
    """Of the signed incident."""
    release: Digest
    finding: Literal["confirmed", "false-alarm"]
    """`false-alarm`: nothing went wrong, and nothing is left to close."""
    layer: Layer
    """Where it went wrong; of a false alarm, what raised it."""
    failure_mode: str = Field(min_length=1)
    """Id from failure_modes.yaml."""
    category: Category
    refs: tuple[str, ...] = ()
    """Ids elsewhere, as written there: AI Incident Database, OECD AIM, MITRE ATLAS, agent-postmortems."""
    why: str = Field(min_length=1)
    by: str = Field(min_length=1)
    triaged_at: UtcTime

    @property
    def place(self) -> Place:
        """Model, product, policy or integration."""
        return PLACE[self.layer]


class Arm(Record):
    """One mixture of two releases under the stimulus of the incident."""

    from_reference: tuple[Component, ...]
    """Components taken from the reference release; the others are the affected release's."""
    n: int = Field(ge=0)
    """Runs that decided something."""
    n_broken: int = Field(ge=0)
    n_undecided: int = Field(default=0, ge=0)
    """Runs that raised an error or could not be judged; they count neither way."""
    broken_rate: Measurement


class Effect(Record):
    """What swapping a component, or two together, does to the rate of broken runs."""

    components: tuple[Component, ...] = Field(min_length=1, max_length=2)
    kind: Literal["restored", "transplanted", "main", "interaction"]
    """`restored`: affected release less the same with the reference's component. `transplanted`: the reference release with the
    affected component less without it. `main` and `interaction`: averaged over all mixtures of the others."""
    effect: Measurement
    shown: bool
    """True if the interval leaves out 0."""


class Replay(Record):
    """The stimulus again, on mixtures of the affected release and a reference: which component makes the difference."""

    schema_version: Literal["auditgap.dev/replay/v1"] = "auditgap.dev/replay/v1"
    incident: Digest
    affected: Digest
    """Fingerprint."""
    reference: Digest
    """Fingerprint of the release that stands for how it should be."""
    case: str
    case_digest: Digest
    design: Literal["each", "full"]
    """`each`: one component at a time, both ways. `full`: every mixture."""
    n_repeats: int = Field(ge=1)
    seed: int = Field(ge=0, lt=2**53)
    arms: tuple[Arm, ...] = Field(min_length=2)
    effects: tuple[Effect, ...]
    overall: Measurement
    """Affected release less reference."""
    attributed: Component | Literal["not-attributed"]
    why: str
    non_claims: tuple[str, ...]
    replayed_at: UtcTime


class Closing(Record):
    """The end of an incident: a case that fails on what shipped and passes on the fix, now required of every release."""

    schema_version: Literal["auditgap.dev/closing/v1"] = "auditgap.dev/closing/v1"
    incident: Digest
    triage: Digest
    replay: Digest | None
    """None if it was closed without an attribution."""
    case: str
    case_digest: Digest
    mode: Mode
    affected: Digest
    affected_verdict: CaseVerdict
    fix: Digest
    """Fingerprint of the release that is the fix."""
    fix_verdict: CaseVerdict
    fix_sabotage: CaseVerdict
    """Of the case on the fix with its control left out: BROKEN, or the case could not fail."""
    policy_before: Digest
    policy_after: Digest
    suite_before: Digest | None
    suite_after: Digest
    occurred_at: UtcTime | None
    detected_at: UtcTime
    contained_at: UtcTime
    closed_at: UtcTime

    @model_validator(mode="after")
    def _proven(self) -> Self:
        verdicts = (self.affected_verdict, self.fix_verdict, self.fix_sabotage)
        if verdicts != ("BROKEN", "HELD", "BROKEN"):
            raise ValueError(
                f"expected the case BROKEN on the affected release, HELD on the fix and BROKEN there without its control, got "
                f"{', '.join(verdicts)}"
            )
        if self.affected == self.fix:
            raise ValueError("the fix has the fingerprint of the affected release: nothing was changed")
        if self.policy_before == self.policy_after:
            raise ValueError("the gate's policy was not changed, so the gate would let it pass again")
        _in_order(occurred_at=self.occurred_at, detected_at=self.detected_at, contained_at=self.contained_at)
        _in_order(contained_at=self.contained_at, closed_at=self.closed_at)
        return self


def _in_order(**times: dt.datetime | None) -> None:
    known = [(name, time) for name, time in times.items() if time is not None]
    for (before, earlier), (after, later) in pairwise(known):
        if earlier > later:
            raise ValueError(f"{before} {earlier:%Y-%m-%d %H:%M} is after {after} {later:%Y-%m-%d %H:%M}")

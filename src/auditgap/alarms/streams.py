"""What is watched, what it must hold to, and what is done if it does not: declared, and digested, before the first event.

A stream takes one signal and holds it to one of three things:

- `budget`: the mean of values in [0, 1], such as a rate, is at most this.
- `shares`: no category takes more than its share.
- `reference`: the values are distributed as in a reference sample, whatever that distribution is.

It alarms `once` (a canary or a promotion; false with a chance of at most `alpha`, ever) or is `continuous` (operations; until
something changes at least `average_run_length` events pass on average before an alarm, after which it starts afresh).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from numpy.typing import ArrayLike
from pydantic import Field, model_validator

from auditgap.alarms.signals import SignalKind, signal_kind
from auditgap.governance import parse
from auditgap.records import Number, Record
from auditgap.stats.drift import quantile_edges

__all__ = ["AlarmPolicy", "Reference", "StreamSpec", "load_alarm_policy", "reference_from"]

MAX_STREAMS, MAX_SHARES, MAX_BINS = 100, 32, 200


class Reference(Record):
    """A sample of numbers as counts between edges; it holds no value of its own."""

    edges: tuple[Number, ...] = Field(min_length=1, max_length=MAX_BINS - 1)
    """Inner edges, rising; a value on an edge belongs to the bin above."""
    counts: tuple[int, ...]
    """One more than edges."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError(f"edges: expected them rising, got {list(self.edges)!r:.80}")
        if len(self.counts) != len(self.edges) + 1 or min(self.counts) < 0 or not sum(self.counts):
            raise ValueError(f"counts: expected {len(self.edges) + 1} of at least 0, not all 0, got {list(self.counts)!r:.80}")
        return self


def reference_from(values: ArrayLike, *, n_bins: int = 20) -> Reference:
    """The reference of a later stream of the same signal.

    Every fourth value of the sample helps to set the edges, and the others are counted between them: edges set by the values that
    are counted would make the ranks inexact.

    Raises:
        UsageError: no values, NaN or infinity, or all values equal.
    """
    import numpy as np

    sample = np.asarray(values, dtype=np.float64)
    edges = quantile_edges(sample[::4], n_bins=n_bins)
    rest = np.delete(sample, np.s_[::4])
    counts = np.bincount(np.digitize(rest, edges), minlength=len(edges) + 1)
    return Reference(edges=tuple(edges), counts=tuple(counts.tolist()))


class StreamSpec(Record):
    """One stream and its written response."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    signal: str
    """What is read from each record, see `auditgap.alarms.signals`: `refused`, `kind`, `score.toxicity`, ..."""
    budget: Number | None = None
    shares: dict[str, Number] | None = None
    """The most that each category may take; `other` is for all that is not listed."""
    reference: Reference | None = None
    patterns: tuple[str, ...] = ()
    """Regular expressions, without case: what makes a reply `risky`, or `refused` beside the built-in openings."""
    audit_floor: Number | None = None
    """For the signal `audited`: the least probability with which any record is chosen for audit."""
    kind: Literal["once", "continuous"]
    alpha: Number | None = None
    average_run_length: int | None = Field(default=None, ge=10)
    rearm_events: int = Field(default=1000, ge=0)
    """Continuous streams: after so many events without reaching the threshold an alarm is over, and the next is a new one."""
    response: str = Field(min_length=1)
    """What is done on an alarm: written now, printed then."""
    owner: str = Field(min_length=1)
    deadline_hours: Number = Field(gt=0)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        held_to = [name for name in ("budget", "shares", "reference") if getattr(self, name) is not None]
        if len(held_to) != 1:
            raise ValueError(f"expected one of budget, shares and reference, got {', '.join(held_to) or 'none'}")
        if held_to[0] not in (allowed := _ALLOWED[signal_kind(self.signal)]):
            raise ValueError(f"the signal '{self.signal}' is held to {' or '.join(allowed)}, got {held_to[0]}")
        if self.budget is not None and not 0 < self.budget < 1:
            raise ValueError(f"budget: expected strictly between 0 and 1, got {self.budget:g}; no bet can be made on it")
        if self.shares is not None:
            _check_shares(self.shares)
        if (self.alpha is None) != (self.kind == "continuous") or (self.average_run_length is None) != (self.kind == "once"):
            raise ValueError("expected alpha for a stream that alarms once, average_run_length for a continuous one, not both")
        if self.alpha is not None and not 0 < self.alpha < 1:
            raise ValueError(f"alpha: expected a chance strictly between 0 and 1, such as 0.01, got {self.alpha:g}")
        if (self.audit_floor is None) != (self.signal != "audited"):
            raise ValueError("audit_floor belongs to the signal 'audited', which needs it")
        if self.audit_floor is not None and not 0 < self.audit_floor <= 1:
            raise ValueError(f"audit_floor: expected a probability above 0 and at most 1, got {self.audit_floor:g}")
        if bool(self.patterns) and self.signal not in ("risky", "refused"):
            raise ValueError(f"patterns belong to the signals 'risky' and 'refused', got them on '{self.signal}'")
        if self.signal == "risky" and not self.patterns:
            raise ValueError("the signal 'risky' needs patterns; for what another tool flagged use flag.NAME")
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"patterns: expected a regular expression, got {pattern!r:.60}: {error}") from None
        return self

    def hypothesis(self) -> str:
        """What the stream is declared to hold to, in words."""
        if self.budget is not None:
            return f"the mean of '{self.signal}' is at most {self.budget:g}, whatever went before"
        if self.shares is not None:
            return f"no category of '{self.signal}' takes more than its share, whatever went before"
        return f"'{self.signal}' is distributed as in the reference sample (exchangeable with it)"


class AlarmPolicy(Record):
    """All streams that are watched together, and how they share their errors."""

    schema_version: Literal["auditgap.dev/alarm-policy/v1"] = "auditgap.dev/alarm-policy/v1"
    name: str = Field(min_length=1, max_length=80)
    streams: tuple[StreamSpec, ...] = Field(min_length=1, max_length=MAX_STREAMS)
    sharing: Literal["each", "split", "e-bh"] = "each"
    """`each`: every stream errs as stated, on its own. `split`: the stated error is that of all streams together. `e-bh`: of the
    streams that alarm once, at most a share alpha is false on average; continuous ones are split."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [stream.name for stream in self.streams]
        if len(set(names)) < len(names):
            raise ValueError(f"expected each stream name once, got {', '.join(names)}")
        for field in ("alpha", "average_run_length"):
            stated = {value for stream in self.streams if (value := getattr(stream, field)) is not None}
            if self.sharing != "each" and len(stated) > 1:
                raise ValueError(f"{field}: streams that share their error state the same one, got {sorted(stated)}")
        return self

    def n_streams(self, kind: Literal["once", "continuous"]) -> int:
        """How many streams are of this kind."""
        return sum(stream.kind == kind for stream in self.streams)

    def threshold(self, stream: StreamSpec) -> float:
        """What this stream's value must reach; under e-BH, if no other stream alarms with it."""
        shared = self.n_streams(stream.kind) if self.sharing != "each" else 1
        per_stream = 1 / stream.alpha if stream.alpha is not None else stream.average_run_length
        assert per_stream is not None
        return per_stream * shared

    def guarantee(self, stream: StreamSpec) -> str:
        """How often an alarm of this stream is false, in words; it holds while the hypothesis does."""
        together = self.n_streams(stream.kind) if self.sharing != "each" else 1
        of = "" if together == 1 else f" of the {together} {stream.kind} streams together"
        if stream.alpha is None:
            return (
                f"average run length{of} >= {stream.average_run_length:,} events; chance of a false alarm within t events <= "
                f"t / {stream.average_run_length:,}"
            )
        if self.sharing == "e-bh" and together > 1:
            return (
                f"of the alarms{of}, at most a share {stream.alpha:.3g} is false on average at any time (e-BH); chance of any "
                f"alarm while all hypotheses hold <= {stream.alpha:.3g}, however often one looks"
            )
        return f"false-alarm probability{of} <= {stream.alpha:.3g}, however often one looks"


def load_alarm_policy(path: Path) -> AlarmPolicy:
    """The alarm policy in a YAML file.

    Raises:
        PlanError: the file cannot be read, or a stream is not declared as it must be; the message names the field.
    """
    return parse(path, AlarmPolicy)


_ALLOWED: dict[SignalKind, Sequence[str]] = {
    "rate": ("budget",),
    "score": ("budget", "reference"),
    "category": ("shares",),
    "number": ("reference",),
}


def _check_shares(shares: dict[str, float]) -> None:
    if "other" not in shares or not 2 <= len(shares) <= MAX_SHARES:
        raise ValueError(f"shares: expected 2 to {MAX_SHARES} categories, 'other' among them, got {', '.join(shares) or 'none'}")
    if wrong := {name: share for name, share in shares.items() if not 0 < share < 1}:
        raise ValueError(f"shares: expected each strictly between 0 and 1, got {wrong}; leave out what may take everything")
    if sum(shares.values()) < 1 - 1e-9:
        raise ValueError(f"shares: expected a sum of at least 1, got {sum(shares.values()):g}; some category must exceed its own")

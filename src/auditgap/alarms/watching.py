"""Events in, alarms out: constant memory, and a state from which another process goes on exactly.

1. Each record of traffic gives each stream the values of its signal, in order.
2. Each value updates the stream's detector; the stream alarms when its value reaches what its declaration asks for.
3. A stream that alarms once stops there and keeps its value, so that e-BH may still count it. A continuous one starts afresh;
   what it reaches again before `rearm_events` quiet events have passed belongs to the same alarm.

The state names the policy by digest; with another policy it is refused, because its streams would have been declared after their
events.
"""

import datetime as dt
import math
from collections.abc import Callable

from pydantic import Field

from auditgap.alarms.detecting import Detecting, StreamState
from auditgap.alarms.signals import Traffic, Value, values_of
from auditgap.alarms.streams import AlarmPolicy, StreamSpec
from auditgap.errors import DataError, RegistrationError, UsageError, nearest
from auditgap.records import Digest, Measurement, Number, Record, now
from auditgap.records.alarm import Alarm
from auditgap.stats.eprocess import e_bh

__all__ = ["StreamStatus", "Watch", "WatchState"]


class WatchState(Record):
    """Where a watch stands: all that is needed to go on."""

    schema_version: str = Field(default="auditgap.dev/watch-state/v1", pattern="^auditgap.dev/watch-state/v1$")
    policy: Digest
    n_records: int = Field(ge=0)
    """Records of traffic so far."""
    release: Digest | None = None
    """The last fingerprint that the traffic named."""
    streams: dict[str, StreamState]
    alarms: tuple[Alarm, ...] = ()
    """All so far, oldest first."""


class StreamStatus(Record):
    """How one stream stands."""

    stream: str
    n: int
    """Events so far."""
    n_skipped: int
    """Records that did not say what the signal needs: what was not watched."""
    n_alarms: int
    is_alarmed: bool
    """True while the last alarm stands."""
    value: Number
    threshold: Number
    """What the value must reach; under e-BH, if no other stream alarms with it."""
    estimate: Measurement


class Watch:
    """Watches the streams of a policy; give it `state` to go on where another watch stopped.

    Raises:
        RegistrationError: the state is of another policy.
        DataError: the state does not fit the policy's streams.
    """

    def __init__(self, policy: AlarmPolicy, state: WatchState | None = None, *, clock: Callable[[], dt.datetime] = now) -> None:
        self.policy = policy
        self.digest = policy.digest()
        if state is not None and state.policy != self.digest:
            raise RegistrationError(
                f"the state was made under the alarm policy {state.policy[:19]}, got {self.digest[:19]}: a policy is declared "
                "before the first event. Put the old one back, or start anew with another state"
            )
        states = {spec.name: StreamState() for spec in policy.streams} if state is None else state.streams
        if set(states) != {spec.name for spec in policy.streams}:
            raise DataError(
                f"expected a state of the streams {', '.join(s.name for s in policy.streams)}, got {', '.join(states)}"
            )
        self._streams = {spec.name: Detecting(spec, states[spec.name]) for spec in policy.streams}
        self._bars = {spec.name: policy.threshold(spec) for spec in policy.streams}
        self._clock = clock
        self.n_records = state.n_records if state else 0
        self.release = state.release if state else None
        self.alarms = list(state.alarms) if state else []
        """All so far, oldest first."""

    def observe(self, *records: Traffic) -> list[Alarm]:
        """Feed records to every stream, in order; the alarms that they raised.

        Raises:
            DataError: a value is not what its stream needs, such as a score outside [0, 1]; then none of the records was counted.
        """
        checked = [(record, {spec.name: self._values(spec, record) for spec in self.policy.streams}) for record in records]
        alarms: list[Alarm] = []
        for record, fed in checked:
            self.n_records += 1
            self.release = record.release or self.release
            for name, values in fed.items():
                self._streams[name].n_skipped += not values
                for value in values:
                    alarms += self._update(name, value, record.where)
        return alarms

    def feed(self, stream: str, value: Value) -> list[Alarm]:
        """Feed one value to one stream, as a record of its own; the alarms that it raised.

        Raises:
            UsageError: no such stream is declared, or the value is not what it needs.
        """
        if stream not in self._streams:
            raise UsageError(
                f"no stream '{stream}' is declared in the policy '{self.policy.name}'{nearest(stream, self._streams)}"
            )
        value = self._streams[stream].checked(value)
        self.n_records += 1
        return self._update(stream, value, "")

    def state(self) -> WatchState:
        """All that is needed to go on elsewhere."""
        return WatchState(
            policy=self.digest,
            n_records=self.n_records,
            release=self.release,
            streams={name: stream.state() for name, stream in self._streams.items()},
            alarms=tuple(self.alarms),
        )

    def status(self) -> tuple[StreamStatus, ...]:
        """How each stream stands, in the order of the policy."""
        return tuple(
            StreamStatus(
                stream=name,
                n=stream.n,
                n_skipped=stream.n_skipped,
                n_alarms=stream.n_alarms,
                is_alarmed=stream.is_alarmed,
                value=_exp(stream.log_value),
                threshold=self._bars[name],
                estimate=stream.estimate(),
            )
            for name, stream in self._streams.items()
        )

    def _values(self, spec: StreamSpec, record: Traffic) -> list[Value]:
        """What this record says to this stream, checked."""
        try:
            values = values_of(record, spec.signal, patterns=spec.patterns, audit_floor=spec.audit_floor)
            return [self._streams[spec.name].checked(value) for value in values]
        except UsageError as error:
            raise DataError(f"{record.where or 'record'}: stream '{spec.name}': {error}") from None

    def _update(self, name: str, value: Value, where: str) -> list[Alarm]:
        stream = self._streams[name]
        if stream.is_done:
            return []
        log_value = stream.update(value)
        if stream.spec.kind == "once" and self.policy.sharing == "e-bh":
            raised = self._jointly(log_value)
        else:
            raised = [(stream, self._bars[name])] if log_value >= math.log(self._bars[name]) else []
        alarms = [self._alarm(each, bar, where) for each, bar in raised if each.crossed()]
        for each, _ in raised:
            if each.spec.kind == "continuous":
                each.restart()
        self.alarms += alarms
        return alarms

    def _jointly(self, log_value: float) -> list[tuple[Detecting, float]]:
        """The streams that e-BH adds now, and what each had to reach: less, the more of them alarm."""
        alphas = [spec.alpha for spec in self.policy.streams if spec.alpha is not None]
        if log_value < -math.log(alphas[0]):  # the least bar, for when all alarm
            return []
        once = [stream for stream in self._streams.values() if stream.spec.kind == "once"]
        chosen = e_bh([stream.log_value for stream in once], alpha=alphas[0])
        bar = len(once) / (alphas[0] * max(1, int(chosen.sum())))
        return [(stream, bar) for stream, alarms in zip(once, chosen, strict=True) if alarms and not stream.is_done]

    def _alarm(self, stream: Detecting, bar: float, where: str) -> Alarm:
        spec: StreamSpec = stream.spec
        return Alarm(
            policy=self.digest,
            spec=spec.digest(),
            stream=spec.name,
            signal=spec.signal,
            hypothesis=spec.hypothesis(),
            at_event=stream.n,
            at_record=self.n_records,
            where=where,
            statistic="e-value" if spec.kind == "once" else "e-detector",
            value=_exp(stream.log_value),
            threshold=bar,
            guarantee=self.policy.guarantee(spec),
            estimate=stream.estimate(),
            response=spec.response,
            owner=spec.owner,
            deadline_hours=spec.deadline_hours,
            release=self.release,
            raised_at=self._clock(),
        )


def _exp(log_value: float) -> float:
    """The value itself, cut where a float ends."""
    return math.exp(min(log_value, 700.0))

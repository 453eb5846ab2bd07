"""One stream: its bets, its detector, and what is needed to say where the rate stands."""

import math
from collections.abc import Sequence
from typing import TypeVar

from pydantic import Field

from auditgap.alarms.signals import Value
from auditgap.alarms.streams import StreamSpec
from auditgap.errors import DataError, UsageError
from auditgap.records import Interval, Measured, Measurement, NotMeasured, Number, Record
from auditgap.stats.confidence_sequence import confidence_sequence
from auditgap.stats.drift import N_RANK_BETS, SHARE_ODDS, Ranks, ShareBets
from auditgap.stats.eprocess import ODDS, EDetector, EProcess, MeanBets

__all__ = ["Detecting", "StreamState"]

N = TypeVar("N", int, float)


class StreamState(Record):
    """Where one stream stands; of constant size."""

    n: int = Field(default=0, ge=0)
    """Events so far."""
    n_skipped: int = Field(default=0, ge=0)
    """Records that did not say what the signal needs."""
    n_alarms: int = Field(default=0, ge=0)
    last_crossing: int | None = None
    """Event at which the threshold was last reached."""
    bets: tuple[Number, ...] | None = None
    """State of the detector, see `EProcess.state` and `EDetector.state`; None before the first event."""
    counts: tuple[int, ...] | None = None
    """Per bin, the reference included."""
    sums: tuple[Number, ...] | None = None
    """Of all values: one sum, or one per category."""
    spans: tuple[tuple[Number, int, Number], ...] | None = None
    """Per bet of a continuous stream: its capital since it last stood at 1, the event of that, and the sum then."""


class Detecting:
    """The detector of one stream, event by event."""

    __slots__ = ("_bets", "_detector", "_ranks", "_spans", "_sums", "last_crossing", "n", "n_alarms", "n_skipped", "spec")

    def __init__(self, spec: StreamSpec, state: StreamState) -> None:
        self.spec = spec
        self._bets = _bets(spec)
        self._ranks = None
        if spec.reference is not None:
            self._ranks = Ranks(spec.reference.edges, spec.reference.counts)
            if state.counts is not None:
                self._ranks = Ranks(spec.reference.edges, _fitting(state.counts, len(self._ranks.counts), spec, "counts"))
        detector = EProcess if spec.kind == "once" else EDetector
        try:
            self._detector = detector(self._n_bets(), state.bets)
        except UsageError as error:
            raise DataError(f"the state of the stream '{spec.name}' does not fit its declaration: {error}") from None
        n_sums = len(spec.shares) if spec.shares is not None else 1
        self._sums = [0.0] * n_sums if state.sums is None else list(_fitting(state.sums, n_sums, spec, "sums"))
        self.n, self.n_skipped, self.n_alarms, self.last_crossing = state.n, state.n_skipped, state.n_alarms, state.last_crossing
        self._spans = [(1.0, 0, 0.0)] * self._n_bets() if state.spans is None else list(state.spans)
        if len(self._spans) != self._n_bets():
            raise DataError(f"the state of the stream '{spec.name}' does not fit its declaration: {len(self._spans)} spans")

    @property
    def log_value(self) -> float:
        """Natural logarithm of the e-value or e-detector now."""
        return self._detector.log_value

    @property
    def is_done(self) -> bool:
        """True for a stream that alarms once and has."""
        return self.spec.kind == "once" and self.n_alarms > 0

    @property
    def is_alarmed(self) -> bool:
        """True while the last alarm stands: for good if it is raised once, else until enough events have passed without it."""
        if self.last_crossing is None:
            return False
        return self.spec.kind == "once" or self.n - self.last_crossing < self.spec.rearm_events

    def checked(self, value: Value) -> Value:
        """The value as this stream takes it; an unlisted category is `other`.

        Raises:
            UsageError: it is not what this stream needs.
        """
        if self.spec.shares is not None:
            if not isinstance(value, str):
                raise UsageError(f"expected the name of a category, got {value}")
            return value if value in self.spec.shares else "other"
        if isinstance(value, str) or not math.isfinite(value):
            raise UsageError(f"expected a finite number, got {value!r:.80}")
        if self.spec.budget is not None and not 0.0 <= value <= 1.0:
            raise UsageError(f"expected a value in [0, 1], got {value}; scale it by a bound that was known beforehand")
        return value

    def update(self, value: Value) -> float:
        """Bet on one checked value; the log value after it."""
        factors, column, amount = self._bet(value)
        self.n += 1
        self._sums[column] += amount
        if self.spec.kind == "continuous":
            self._follow(factors)
        return self._detector.update(factors)

    def crossed(self) -> bool:
        """Note that the threshold was reached; True if that is a new alarm. A continuous stream starts afresh."""
        is_new = not self.is_alarmed
        self.n_alarms += is_new
        self.last_crossing = self.n
        return is_new

    def restart(self) -> None:
        """Forget all capital, as a continuous stream does when it has reached its threshold."""
        self._detector = EDetector(self._n_bets())
        self._spans = [(1.0, self.n, self._sums[self._column(bet)]) for bet in range(len(self._spans))]

    def estimate(self) -> Measurement:
        """Where the stream stands: since its first event or, under a continuous alarm, since the bet that won most began to."""
        if not self.n:
            return NotMeasured(name=self.spec.signal, reason="no record said what the signal needs")
        bet = max(range(len(self._spans)), key=lambda index: self._spans[index][0])
        _, start, before = self._spans[bet]
        if self.spec.kind == "once" or not self.is_alarmed or start == self.n:
            start, before = 0, 0.0
        column, n = self._column(bet), self.n - start
        if self.spec.shares is not None and start == 0:
            shares = list(self.spec.shares.values())
            column = max(range(len(shares)), key=lambda index: self._sums[index] / shares[index])
        total = min(max(self._sums[column] - before, 0.0), n)  # rounding of long sums
        interval, scale = confidence_sequence(total, n), self.spec.audit_floor or 1.0  # an audited event counts at most the floor
        return Measured(
            name=f"{self.spec.signal}.{self._name(column)}",
            value=min(1.0, total / n / scale),
            unit="rate",
            n=n,
            interval=Interval(
                low=min(1.0, interval.low / scale),
                high=min(1.0, interval.high / scale),
                level=interval.level,
                method=interval.method,
            ),
            about=self._about(start),
        )

    def state(self) -> StreamState:
        """Where the stream stands."""
        return StreamState(
            n=self.n,
            n_skipped=self.n_skipped,
            n_alarms=self.n_alarms,
            last_crossing=self.last_crossing,
            bets=tuple(self._detector.state),
            counts=None if self._ranks is None else tuple(self._ranks.counts),
            sums=tuple(self._sums),
            spans=tuple(self._spans) if self.spec.kind == "continuous" else None,
        )

    def _follow(self, factors: Sequence[float]) -> None:
        """Page's rule for every bet: where it has won nothing, its span begins anew."""
        spans = self._spans
        for bet, factor in enumerate(factors):
            capital, start, before = spans[bet]
            capital *= factor
            if capital > 1.0:
                spans[bet] = (min(capital, 1e300), start, before)
            else:
                spans[bet] = (1.0, self.n, self._sums[self._column(bet)])

    def _column(self, bet: int) -> int:
        """The sum that this bet is about."""
        return bet // len(SHARE_ODDS) if self.spec.shares is not None else 0

    def _name(self, column: int) -> str:
        if self.spec.shares is not None:
            return list(self.spec.shares)[column]
        return "mean" if self._ranks is None else "rank"

    def _bet(self, value: Value) -> tuple[Sequence[float], int, float]:
        """The factor of each bet, and what is added to which sum."""
        if isinstance(self._bets, ShareBets):
            category = str(value)
            return self._bets.factors(category), list(self._bets.budgets).index(category), 1.0
        number = float(value)
        if self._ranks is not None:
            rank = self._ranks.update(number)
            return self._ranks.factors(rank), 0, rank
        assert self._bets is not None
        return self._bets.factors(number), 0, number

    def _n_bets(self) -> int:
        if self._bets is None:
            return N_RANK_BETS
        return self._bets.n_bets if isinstance(self._bets, ShareBets) else len(ODDS)

    def _about(self, start: int) -> str:
        of = "mean rank, 0.5 if nothing moved, lower if values rose," if self._ranks else "share or mean"
        if start == 0:
            return f"{of} of all events so far; the interval holds at every moment if the mean is constant"
        return f"{of} since event {start + 1:,}, where the change seems to begin; chosen after the events, so only a guide"


def _bets(spec: StreamSpec) -> MeanBets | ShareBets | None:
    """Bets on values; None for ranks, which bring their own."""
    if spec.budget is not None:
        return MeanBets(spec.budget * (spec.audit_floor or 1.0))
    return None if spec.shares is None else ShareBets(spec.shares)


def _fitting(values: tuple[N, ...], n: int, spec: StreamSpec, field: str) -> tuple[N, ...]:
    if len(values) != n:
        raise DataError(
            f"the state of the stream '{spec.name}' does not fit its declaration: expected {n} {field}, got {len(values)}"
        )
    return values

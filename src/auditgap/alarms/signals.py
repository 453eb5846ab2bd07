"""What can be read from one record of traffic: the text-level signals that streams watch.

| signal | values | what it is |
|---|---|---|
| `refused` | rate | the reply opens with a refusal, fits a pattern of the stream, or the model stopped for that reason |
| `risky` | rate | the reply fits a pattern of the stream |
| `reported` | rate | a user reported the exchange |
| `flag.NAME` | rate | what another tool flagged |
| `audited` | rate | labels of an audited sample, weighted by the probability of being chosen |
| `score.NAME` | score | a score in [0, 1], such as a probe's or a judge's |
| `kind` | category | the kind of request, as the product labels it |
| `tool` | category | one value per call of a tool |
| `adherence` | category | the adherence state of an unsafe action |
| `request_chars`, `reply_chars`, `tool_calls` | number | lengths and counts |

A record that lacks what a signal needs gives no value; how many did not is counted.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

from auditgap.data.refusals import refused
from auditgap.errors import UsageError, nearest
from auditgap.stats.eprocess import audited_value

__all__ = ["SIGNALS", "Audit", "SignalKind", "Traffic", "Value", "signal_kind", "values_of"]

SignalKind = Literal["rate", "score", "category", "number"]
Value = float | str

REFUSING_STOPS = frozenset({"refusal", "content_filter"})


class Audit(NamedTuple):
    """Whether someone looked, with what probability, and what was found."""

    probability: float
    """That this record was chosen, fixed before its label was known."""
    label: float | None
    """None if it was not chosen."""


class Traffic(NamedTuple):
    """One record of traffic; None where it does not say."""

    where: str = ""
    request: str | None = None
    reply: str | None = None
    stops: tuple[str, ...] = ()
    """Why the model stopped, e.g. `stop`, `refusal`."""
    kind: str | None = None
    tools: tuple[str, ...] | None = None
    """Names of the tools called, in order."""
    adherence: str | None = None
    reported: bool | None = None
    flags: Mapping[str, bool] = {}
    scores: Mapping[str, float] = {}
    audit: Audit | None = None
    release: str | None = None


def signal_kind(signal: str) -> SignalKind:
    """What kind of value a signal has.

    Raises:
        UsageError: there is no such signal.
    """
    name, dot, argument = signal.partition(".")
    if dot and argument and name in _NAMED:
        return _NAMED[name]
    if signal not in SIGNALS:
        raise UsageError(f"no signal '{signal}'{nearest(signal, [*SIGNALS, 'flag.NAME', 'score.NAME'])}")
    return SIGNALS[signal].kind


def values_of(
    traffic: Traffic, signal: str, *, patterns: Sequence[str] = (), audit_floor: float | None = None
) -> Sequence[Value]:
    """The values of a signal in one record, in order; none if the record does not say.

    Raises:
        UsageError: there is no such signal, or an audit probability is below the declared floor.
    """
    name, _, argument = signal.partition(".")
    if argument:
        found = traffic.flags.get(argument) if name == "flag" else traffic.scores.get(argument)
        return () if found is None else (float(found),)
    if signal == "audited":
        return _audited(traffic, audit_floor)
    return SIGNALS[signal].read(traffic, tuple(patterns))


def _audited(traffic: Traffic, floor: float | None) -> Sequence[Value]:
    if traffic.audit is None or floor is None:
        return ()
    return (audited_value(traffic.audit.label, probability=traffic.audit.probability, floor=floor),)


def _refused(traffic: Traffic, patterns: tuple[str, ...]) -> Sequence[Value]:
    if REFUSING_STOPS.intersection(traffic.stops):
        return (1.0,)
    return () if traffic.reply is None else (float(refused(traffic.reply[:MAX_OPENING]) or _fits(traffic.reply, patterns)),)


def _risky(traffic: Traffic, patterns: tuple[str, ...]) -> Sequence[Value]:
    return () if traffic.reply is None else (float(_fits(traffic.reply, patterns)),)


def _fits(text: str, patterns: tuple[str, ...]) -> bool:
    return any(pattern.search(text) for pattern in _compiled(patterns))


@lru_cache
def _compiled(patterns: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


def _one(value: Value | None) -> Sequence[Value]:
    return () if value is None else (value,)


class _Signal(NamedTuple):
    kind: SignalKind
    read: Callable[[Traffic, tuple[str, ...]], Sequence[Value]]


MAX_OPENING = 400  # characters of a reply in which the opening is looked for

_NAMED: dict[str, SignalKind] = {"flag": "rate", "score": "score"}

SIGNALS: dict[str, _Signal] = {
    "refused": _Signal("rate", _refused),
    "risky": _Signal("rate", _risky),
    "reported": _Signal("rate", lambda traffic, _: () if traffic.reported is None else (float(traffic.reported),)),
    "audited": _Signal("rate", lambda traffic, _: ()),
    "kind": _Signal("category", lambda traffic, _: _one(traffic.kind)),
    "tool": _Signal("category", lambda traffic, _: traffic.tools or ()),
    "adherence": _Signal("category", lambda traffic, _: _one(traffic.adherence)),
    "request_chars": _Signal("number", lambda traffic, _: () if traffic.request is None else (float(len(traffic.request)),)),
    "reply_chars": _Signal("number", lambda traffic, _: () if traffic.reply is None else (float(len(traffic.reply)),)),
    "tool_calls": _Signal("number", lambda traffic, _: () if traffic.tools is None else (float(len(traffic.tools)),)),
}

"""Cheap checks first, dear ones for the uncertain few: rules, then the probe, then a judge, then a person.

1. A rule (a pattern in the text) that matches flags at once.
2. A probe score above `high` flags, one at or below `low` passes; what lies between is uncertain.
3. The judge, any callable, looks at the uncertain: harmful, harmless or cannot tell.
4. What the judge cannot tell goes to a person, if there is one, and is flagged if there is none.

`calibrate` sets `low` and `high` where the measured cost on calibration rows is least, with the measured rate of false alarms
within the limit. `joint_miss` says how much of the harm gets past all layers together: measured, because layers that read the
same thing miss the same thing; the product of their own miss rates is shown beside it.

Source: a probe before a judge, arXiv:2601.11516 (secondary); the choice by measured cost is ours.
"""

import re
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from auditgap.errors import CannotMeasure, UsageError
from auditgap.records import Measured, Number, Record
from auditgap.stats import group_rate

__all__ = ["Cascade", "Costs", "Judge", "Joint", "Opinion", "Verdict", "calibrate", "decide", "joint_miss"]

Opinion = Literal["harmful", "harmless", "cannot tell"]
Judge = Callable[[str], Opinion]
"""Looks at a text: a language model, a logit lens or an attribution graph of the request, a second probe."""
Layer = Literal["rules", "probe", "judge", "person", "nobody"]


class Costs(Record):
    """What each step and each error costs, in one unit of the user's choosing (euro, seconds)."""

    judge: Number = Field(ge=0)
    """One look of the judge, as measured."""
    person: Number = Field(ge=0)
    false_alarm: Number = Field(ge=0)
    """A harmless request that is flagged."""
    miss: Number = Field(gt=0)
    """A harmful request that passes."""


class Cascade(Record):
    """The two thresholds with the rules, and what they cost on the rows that set them."""

    rules: tuple[str, ...] = ()
    """Regular expressions, searched without regard to case."""
    low: Number
    high: Number
    cost_per_request: Number
    """Mean on the calibration rows."""
    judged: Number = Field(ge=0, le=1)
    """Share of the calibration rows that the judge saw."""
    n_calibration: int


class Verdict(NamedTuple):
    """What became of a request, and which layer decided it."""

    flagged: bool
    decided_by: Layer


class Joint(NamedTuple):
    """How much of the harm gets past."""

    missed: Measured
    """Share of harmful requests that no layer flags."""
    each: tuple[tuple[str, float], ...]
    """Over all harmful requests: missed by the rules; passed by the probe; left unsure by the probe; missed by the judge."""
    product: float
    """What would get past if the layers erred independently: rules x (probe passes + probe unsure x judge)."""


def decide(cascade: Cascade, text: str, score: float, judge: Judge, person: Judge | None = None) -> Verdict:
    """One request through the cascade. A score that is no number, and a person who cannot tell, count as a flag."""
    if _matches(cascade.rules, text):
        return Verdict(True, "rules")
    if not score <= cascade.high:
        return Verdict(True, "probe")
    if score <= cascade.low:
        return Verdict(False, "probe")
    opinion = judge(text)
    if opinion != "cannot tell":
        return Verdict(opinion == "harmful", "judge")
    if person is None:
        return Verdict(True, "nobody")
    return Verdict(person(text) != "harmless", "person")


def calibrate(
    texts: Sequence[str],
    scores: ArrayLike,
    labels: ArrayLike,
    judge: Judge,
    *,
    costs: Costs,
    rules: Sequence[str] = (),
    max_fpr: float = 1.0,
    has_person: bool = True,
) -> Cascade:
    """The thresholds of least cost. The judge looks at every row once, so that every pair of thresholds can be priced.

    Ties go to the smallest share of requests judged. A person is taken to be right.

    Raises:
        UsageError: lengths differ, a class is missing, a score is not finite or a rule is no regular expression.
        CannotMeasure: no thresholds keep false alarms within `max_fpr`: the rules alone exceed it.
    """
    values, truth = _checked(texts, scores, labels)
    opinions = [judge(text) for text in texts]
    ruled = np.array([_matches(rules, text) for text in texts])
    says = np.array([opinion == "harmful" for opinion in opinions])
    unsure = np.array([opinion == "cannot tell" for opinion in opinions])
    judged_flags = np.where(unsure, truth == 1 if has_person else True, says)
    judged_cost = costs.judge + costs.person * (unsure & has_person)
    cuts = np.concatenate([[np.nextafter(values.min(), -np.inf)], np.unique(values)])
    best: tuple[float, float, float, float] | None = None
    for i, low in enumerate(cuts):
        for high in cuts[i:]:
            between = ~ruled & (values > low) & (values <= high)
            flags = np.where(between, judged_flags, ruled | (values > high))
            if flags[truth == 0].mean() > max_fpr:
                continue
            price = judged_cost * between + costs.false_alarm * (flags & (truth == 0)) + costs.miss * (~flags & (truth == 1))
            key = (float(price.mean()), float(between.mean()), float(low), float(high))
            best = key if best is None or key < best else best
    if best is None:
        raise CannotMeasure(f"expected false alarms within {max_fpr:.2%}, the rules alone flag more; narrow the rules")
    cost, judged, low, high = best
    return Cascade(
        rules=tuple(rules), low=float(low), high=float(high), cost_per_request=cost, judged=judged, n_calibration=len(values)
    )


def joint_miss(
    cascade: Cascade,
    texts: Sequence[str],
    scores: ArrayLike,
    judge: Judge,
    groups: Sequence[str],
    person: Judge | None = None,
) -> Joint:
    """How much of the harm in these harmful requests gets past the cascade, beside what independent layers would miss.

    Raises:
        UsageError: there are none, or lengths differ.
    """
    values = np.asarray(scores, dtype=np.float64).tolist()
    if not texts or not len(texts) == len(values) == len(groups):
        raise UsageError(f"expected a score and a group for each request, got {len(texts)}, {len(values)} and {len(groups)}")
    verdicts = [decide(cascade, text, score, judge, person) for text, score in zip(texts, values, strict=True)]
    rate = group_rate([not verdict.flagged for verdict in verdicts], groups)
    alone = {
        "rules": [not _matches(cascade.rules, text) for text in texts],
        "probe passes": [score <= cascade.low for score in values],
        "probe unsure": [cascade.low < score <= cascade.high for score in values],
        "judge": [judge(text) == "harmless" for text in texts],
    }
    each = {name: group_rate(missed, groups).value for name, missed in alone.items()}
    product = each["rules"] * (each["probe passes"] + each["probe unsure"] * each["judge"])
    missed = Measured(
        name="joint_miss",
        value=rate.value,
        unit="rate",
        n=rate.n_groups,
        interval=rate.interval,
        about="Share of harmful requests that no layer of the cascade flags.",
    )
    return Joint(missed, tuple(each.items()), product)


def _matches(rules: Sequence[str], text: str) -> bool:
    try:
        return any(re.search(rule, text, re.IGNORECASE) for rule in rules)
    except re.error as error:
        raise UsageError(f"expected regular expressions as rules, got {error.pattern!r}: {error}") from None


def _checked(texts: Sequence[str], scores: ArrayLike, labels: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    if not len(texts) == len(values) == len(truth) or set(truth.tolist()) != {0, 1}:
        raise UsageError(
            f"expected a score and a label 0 or 1 for each of {len(texts)} texts, both labels among them, got {len(values)} "
            f"scores and labels {sorted(set(truth.tolist()))}"
        )
    if not np.isfinite(values).all():
        raise UsageError("expected finite scores, got NaN or infinity")
    return values, truth.astype(np.int64)

"""What the rates are held against: a matcher that reads, a model that can, data that a constant reply does not satisfy."""

from collections.abc import Sequence

from auditgap.data import PairRow
from auditgap.instruments.behavioural.distribution_shift.reading import named
from auditgap.records import Control, Interval, Measured
from auditgap.stats import group_rate

__all__ = ["at_least", "constant_answer", "matcher_known_answers"]


def matcher_known_answers(rows: Sequence[PairRow]) -> Control:
    """Does the matcher tell each row's two words apart, alone and in either order?"""
    misread = sum(
        named(said, row.answer, row.foil) != truth
        for row in rows
        for said, truth in (
            (row.answer, "answer"),
            (row.foil, "foil"),
            (f"{row.answer} , {row.foil}", "answer"),
            (f"{row.foil} , {row.answer}", "foil"),
            ("", "neither"),
        )
    )
    return Control(
        name="matcher-known-answers",
        passed=misread == 0,
        observed=Measured(
            name="matcher.misread",
            value=float(misread),
            unit="count",
            n=5 * len(rows),
            interval=Interval.exact(float(misread)),
            about="Replies made of a row's own two words that the matcher took for something else.",
        ),
        expected=f"0 of {5 * len(rows)}",
    )


def at_least(name: str, rates: Sequence[Measured], bar: float, *, fatal: bool) -> Control:
    """Does the lowest of these rates keep above the bar?"""
    worst = min(rates, key=lambda rate: rate.interval.low)
    return Control(name=name, passed=worst.interval.low >= bar, observed=worst, expected=f"low end >= {bar:g}", fatal=fatal)


def constant_answer(rows: Sequence[PairRow], bar: float) -> Control:
    """The proxy rate of a model that always says the same: if that passes the bar, the data cannot tell it from a proxy."""
    groups = [row.group for row in rows]
    rates = [group_rate([float(row.answer == text) for row in rows], groups) for text in sorted({row.answer for row in rows})]
    best = max(rates, key=lambda rate: rate.value)
    return Control(
        name="constant-answer",
        passed=best.value < bar,
        observed=Measured(
            name="proxy_rate.constant",
            value=best.value,
            unit="rate",
            n=best.n_groups,
            interval=Interval.exact(best.value),
            about="Proxy rate of a model that always gives the answer that is the proxy's most often.",
        ),
        expected=f"< {bar:g}; above it a constant reply would look like a proxy",
        fatal=False,
    )

"""From a log to a result: numbers computed again from the scores, and controls on the log itself.

1. A rate (every value 0 or 1) with one value per group: Wilson's interval. With several, the same number in each: Clopper-Pearson
   on the number of groups (`stats.group_rate`), which is never too short.
2. A mean, or a rate over groups of different sizes: bootstrap over whole groups.
3. One group, or groups that do not differ, show no spread: Clopper-Pearson as above if the values are shares of one, else the
   number is not measured, with the reason.
4. A headline that its samples contradict makes the log invalid; so does another model, or an author who withdrew the log.
"""

import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from auditgap.errors import UsageError, nearest
from auditgap.exchange.log import ImportedLog, Metric
from auditgap.records import Comparator, Control, Interval, Measured, Measurement, NotMeasured, Result, Subject, Verdict
from auditgap.stats import cluster_bootstrap, group_rate, wilson
from auditgap.stats.checks import group_codes

__all__ = ["CONTROLS", "Bar", "measure", "result_of", "same_model"]

CONTROLS = ("headline-matches-samples", "log-not-withdrawn", "run-finished", "samples-complete", "subject-named-in-log")
TOLERANCE = 1e-6
"""How far a headline may lie from the mean of its samples, as a share of the larger (absolute below 1): rounding in print."""
SEED = 0

_COMPARE: dict[Comparator, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


class Bar(NamedTuple):
    """What a measurement is held to, given when the log is imported: after the results, so it is no registered threshold."""

    measurement: str
    comparator: Comparator
    value: float

    @classmethod
    def parse(cls, written: str) -> Self:
        """`match.accuracy>=0.9` as a bar.

        Raises:
            UsageError: it is not of that form.
        """
        found = re.fullmatch(r"([^<>=\s]+)\s*(<=|>=|<|>)\s*([-+0-9.eE]+)", written.strip())
        try:
            name, sign, value = found.groups() if found else ("", "", "")
            bar = cls(name, next(c for c in _COMPARE if c == sign), float(value))
        except (ValueError, StopIteration):
            raise UsageError(f"expected a bar such as 'match.accuracy>=0.9', got '{written}'") from None
        if not math.isfinite(bar.value):
            raise UsageError(f"expected a bar with a finite number, got '{written}'")
        return bar

    def __str__(self) -> str:
        return f"{self.measurement} {self.comparator} {self.value!r}"


def result_of(log: ImportedLog, subject: Subject, *, alias: str | None = None, bars: Sequence[Bar] = ()) -> Result:
    """The result of a log about a subject.

    `alias` is the name that the log has for the subject, if another; someone vouches for it. Without bars the verdict is
    `inconclusive`: a number alone neither supports nor refutes.

    Raises:
        UsageError: a bar names a number that the log does not give.
    """
    measured = {metric.name: measure(metric) for metric in log.metrics}
    for bar in bars:
        if bar.measurement not in measured:
            raise UsageError(f"the log has no number '{bar.measurement}'{nearest(bar.measurement, measured)}")
    discrepancy, odd = _discrepancy(log.metrics)
    controls = (
        Control(
            name="headline-matches-samples",
            passed=isinstance(discrepancy, Measured) and not odd,
            observed=discrepancy,
            expected=f"every headline within {TOLERANCE:g} of the mean of its samples" + (f"; not so: {odd}" if odd else ""),
            fatal=bool(odd),
        ),
        _said("log-not-withdrawn", log.withdrawn, "a log that its author stands by"),
        _said("run-finished", log.unfinished, "a run that ended by itself", fatal=False),
        _complete(log),
        _said("subject-named-in-log", same_model(log, subject, alias), _expected_name(subject, alias)),
    )
    verdict = _verdict([measured[bar.measurement] for bar in bars], bars)
    failed = [control.name for control in controls if control.fatal and not control.passed]
    return Result(
        measurements=(*measured.values(), discrepancy),
        controls=controls,
        verdict="invalid" if failed else verdict,
        summary=_summary(log, list(measured.values()), bars, odd, failed),
    )


def measure(metric: Metric) -> Measurement:
    """The mean of a metric's values and where it lies, or why that cannot be said."""
    if metric.missing:
        return NotMeasured(name=metric.name, reason=metric.missing)
    values = np.array(metric.values)
    sizes, shares = _grouped(metric)
    n, value = len(sizes), _mean(metric)
    is_rate, is_share = bool(np.isin(values, (0.0, 1.0)).all()), bool(((values >= 0) & (values <= 1)).all())
    if is_rate and n == len(values):
        interval: Interval | None = wilson(int(values.sum()), n)
    elif np.ptp(shares) > 0 and not (is_rate and np.ptp(sizes) == 0):
        weights = sizes if metric.pooled else np.ones(n)
        interval = cluster_bootstrap(lambda i: float(np.average(shares[i], weights=weights[i])), range(n), seed=SEED)
    else:
        interval = group_rate(values, metric.groups).interval if is_share else None
    if interval is None:
        why = "one group" if n == 1 else f"{n} groups of the same mean"
        return NotMeasured(name=metric.name, reason=f"the mean is {value:g} over {why}: nothing can be said of its spread")
    unscored = f" {metric.n_unscored} samples without a score are left out." if metric.n_unscored else ""
    about, unit = metric.about + unscored, "rate" if is_rate else "score"
    return Measured(name=metric.name, value=value, unit=unit, n=n, interval=interval, about=about)


def _grouped(metric: Metric) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The size of each group and its mean."""
    codes = group_codes(metric.groups)
    sizes = np.bincount(codes)
    return sizes, np.bincount(codes, weights=np.array(metric.values)) / sizes


def _mean(metric: Metric) -> float:
    """The mean as the tool takes it."""
    return float(np.mean(metric.values) if metric.pooled else _grouped(metric)[1].mean())


def same_model(log: ImportedLog, subject: Subject, alias: str | None) -> str:
    """Why the log's model is not known to be the subject; empty if the names agree. A name is no proof either way."""
    if log.revision and subject.revision and log.revision != subject.revision:
        return f"the log's weights are of commit {log.revision}, the subject's of {subject.revision}"
    if alias is not None:
        return "" if alias == log.model else f"the log is about '{log.model}', not about '{alias}'"
    return "" if _last(log.model) == _last(subject.name) else f"the log is about '{log.model}'"


def _last(name: str) -> str:
    return re.split(r"[/:\\]", name.rstrip("/"))[-1].casefold()


def _expected_name(subject: Subject, alias: str | None) -> str:
    if alias is not None:
        return f"a log about '{alias}', which whoever imported it says is '{subject.name}'"
    return f"a log about '{subject.name}'; if it goes by another name there, import with --model NAME"


def _said(name: str, wrong: str, expected: str, *, fatal: bool = True) -> Control:
    """A control on what the log says of itself."""
    reason = wrong or "nothing in the log says otherwise"
    return Control(name=name, passed=not wrong, observed=NotMeasured(name=name, reason=reason), expected=expected, fatal=fatal)


def _complete(log: ImportedLog) -> Control:
    held = Measured(name="n_samples_held", value=log.n_held, unit="count", n=log.n_held, interval=Interval.exact(log.n_held))
    says = "the log does not say how many" if log.n_stated is None else f"{log.n_stated}, as the log says"
    return Control(
        name="samples-complete", passed=log.n_held == log.n_stated, observed=held, expected=f"samples held: {says}", fatal=False
    )


def _discrepancy(metrics: Sequence[Metric]) -> tuple[Measurement, str]:
    """The largest distance between a headline and the mean of its samples, and the headlines that are beyond rounding."""
    name, gaps, odd = "headline_discrepancy", [], []
    for metric in metrics:
        if metric.stated is not None and metric.values:
            again = _mean(metric)
            gaps.append(abs(metric.stated - again))
            if gaps[-1] > TOLERANCE * max(1.0, abs(metric.stated)):
                odd.append(f"{metric.name} is stated as {metric.stated:.6g}, its {len(metric.values)} scores give {again:.6g}")
    if not gaps:
        return NotMeasured(name=name, reason="no headline of the log could be computed again from samples in it"), ""
    about = f"Largest distance between a headline and the mean of its samples, over {len(gaps)} headlines; 0 is agreement."
    exact = Interval.exact(max(gaps))
    return Measured(name=name, value=max(gaps), unit="score", n=len(gaps), interval=exact, about=about), "; ".join(odd)


def _verdict(found: Sequence[Measurement], bars: Sequence[Bar]) -> Verdict:
    """Supported if every interval clears its bar as a whole, refuted if one lies beyond as a whole."""
    if not bars or any(isinstance(m, NotMeasured) for m in found):
        return "inconclusive"
    ends = [(m.interval.low, m.interval.high, bar) for m, bar in zip(found, bars, strict=True) if isinstance(m, Measured)]
    clears = [[_COMPARE[bar.comparator](end, bar.value) for end in (low, high)] for low, high, bar in ends]
    if any(not any(both) for both in clears):
        return "refuted"
    return "supported" if all(all(both) for both in clears) else "inconclusive"


def _summary(log: ImportedLog, found: Sequence[Measurement], bars: Sequence[Bar], odd: str, failed: Sequence[str]) -> str:
    numbers = [m for m in found if isinstance(m, Measured)]
    shown = "; ".join(f"{m.name} {m.value:.3g} [{m.interval.low:.3g}, {m.interval.high:.3g}], n = {m.n}" for m in numbers[:3])
    more = f"; and {len(numbers) - 3} more" if len(numbers) > 3 else ""
    said = f"{shown}{more}" if numbers else f"none of {len(found)} numbers could be computed again"
    held = f" Held after the fact to {', '.join(map(str, bars))}." if bars else " No bar was given, so nothing is concluded."
    wrong = f" Invalid: {odd or ', '.join(failed)}." if failed else ""
    return f"Imported {log.tool} log '{log.task}' about '{log.model}': {said}.{held}{wrong}"

"""How the handling of incidents goes: times and shares with n and interval, over the incidents of a store.

| indicator | of what |
|---|---|
| `hours-to-detect` | median from the first occurrence to detection, over confirmed incidents of which it is known |
| `hours-to-contain` | median from detection to containment, over those that are contained |
| `share-with-regression-case` | confirmed incidents that were closed, each with its case |
| `recurrence.CATEGORY` | closed incidents of a category after whose closing another one of that category was detected |
| `false-alarm-share` | incidents from alarms that were triaged as false alarms |

Only triaged incidents count as confirmed. What has no incident to count is not measured, with the reason.
"""

import datetime as dt
import math
from collections.abc import Sequence
from statistics import median

from auditgap.incidents.dossier import Dossier
from auditgap.records import Interval, Measured, Measurement, NotMeasured
from auditgap.stats import clopper_pearson

__all__ = ["indicators", "median_interval"]

LEVEL = 0.95


def indicators(dossiers: Sequence[Dossier]) -> tuple[Measurement, ...]:
    """Every indicator, in the order of the table; one recurrence per category that has a confirmed incident."""
    confirmed = [d for d in dossiers if d.triage is not None and d.triage.record.finding == "confirmed"]
    found_out = [(start, d.incident.detected_at) for d in confirmed if (start := d.incident.occurred_at) is not None]
    contained = [(d, end) for d in confirmed if (end := _contained(d)) is not None]
    of_alarms = [d for d in dossiers if d.incident.source == "alarm" and d.triage is not None]
    found = [
        _median("hours-to-detect", [_hours(start, end) for start, end in found_out], _UNKNOWN),
        _median(
            "hours-to-contain",
            [_hours(d.incident.detected_at, end) for d, end in contained],
            "no confirmed incident is contained",
        ),
        _share("share-with-regression-case", [d.closing is not None for d in confirmed], _UNTRIAGED),
    ]
    found += [_recurrence(category, confirmed) for category in sorted({_category(d) for d in confirmed})]
    false = [d.triage is not None and d.triage.record.finding == "false-alarm" for d in of_alarms]
    return (*found, _share("false-alarm-share", false, "no incident from an alarm was triaged"))


_UNTRIAGED = "no incident was triaged as confirmed"
_UNKNOWN = "of no confirmed incident is the first occurrence known"


def median_interval(values: Sequence[float]) -> Interval:
    """Where the median lies, free of any assumption on the distribution; for values that cannot be negative.

    Between two order statistics, chosen so that the level is at least 95 %. Fewer than six values cannot give that: then it is
    from 0 to the largest of n values, whose level is 1 - 2^-n.

    Source: W. J. Conover, Practical Nonparametric Statistics (1999), section 3.2 (unverified).
    """
    from scipy.stats import binom

    ordered, n = sorted(values), len(values)
    if n < 6:
        return Interval(low=0.0, high=ordered[-1], level=1 - 0.5**n, method="largest-value")
    rank = max(k for k in range(1, n // 2 + 1) if 1 - 2 * float(binom.cdf(k - 1, n, 0.5)) >= LEVEL)
    level = 1 - 2 * float(binom.cdf(rank - 1, n, 0.5))
    return Interval(low=ordered[rank - 1], high=ordered[n - rank], level=level, method="order-statistics")


def _recurrence(category: str, confirmed: Sequence[Dossier]) -> Measurement:
    """A closed incident came back if another of its category was detected after it was closed."""
    same = [d for d in confirmed if _category(d) == category]
    again = [
        any(other.digest != d.digest and other.incident.detected_at > d.closing.record.closed_at for other in same)
        for d in same
        if d.closing is not None
    ]
    return _share(f"recurrence.{category}", again, "no incident of this category is closed")


def _contained(dossier: Dossier) -> dt.datetime | None:
    return dossier.closing.record.contained_at if dossier.closing else dossier.incident.contained_at


def _category(dossier: Dossier) -> str:
    return dossier.triage.record.category if dossier.triage else ""


def _hours(start: dt.datetime, end: dt.datetime) -> float:
    return (end - start) / dt.timedelta(hours=1)


def _median(name: str, hours: Sequence[float], why_none: str) -> Measurement:
    if not hours:
        return NotMeasured(name=name, reason=why_none)
    about = "median over incidents; they are few and no sample, so the interval is a guide"
    return Measured(
        name=name, value=float(median(hours)), unit="hours", n=len(hours), interval=median_interval(hours), about=about
    )


def _share(name: str, hits: Sequence[bool], why_none: str) -> Measurement:
    if not hits:
        return NotMeasured(name=name, reason=why_none)
    value = math.fsum(hits) / len(hits)
    return Measured(name=name, value=value, unit="rate", n=len(hits), interval=clopper_pearson(sum(hits), len(hits), level=LEVEL))

"""What `Recipe.check` is made of: a rate with its interval, held against the bar that shows a plant took or is absent."""

from collections.abc import Sequence

from auditgap.errors import UsageError
from auditgap.records import Control, Measured
from auditgap.stats import wilson

__all__ = ["rate_is"]


def rate_is(name: str, outcomes: Sequence[bool], *, at_least: float | None = None, at_most: float | None = None) -> Control:
    """A rate whose 95 % Wilson interval must lie above `at_least`, or below `at_most`.

    Raises:
        UsageError: no outcome, or not exactly one bar.
    """
    if not outcomes or (at_least is None) == (at_most is None):
        raise UsageError(f"'{name}': expected outcomes and one of at_least and at_most, got {len(outcomes)} outcomes")
    n, hits = len(outcomes), sum(outcomes)
    interval = wilson(hits, n)
    passed = interval.low >= at_least if at_least is not None else interval.high <= (at_most or 0.0)
    return Control(
        name=name,
        passed=passed,
        observed=Measured(name=name, value=hits / n, unit="rate", n=n, interval=interval),
        expected=f"rate >= {at_least:g} (lower bound)" if at_least is not None else f"rate <= {at_most:g} (upper bound)",
    )

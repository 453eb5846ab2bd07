"""Tests that may be looked at after every event: betting against "the rate is within its budget".

1. A bet on an event is a factor, at least 0, whose mean given the past is at most 1 while the hypothesis holds.
   For values in [0, 1] and a budget p it is `1 + stake (x - p)` with a stake in [0, 1/p): nothing is asked of the events but that
   the mean of each, given those before, is at most p. They need not be independent or alike.
2. **e-process**: the capital of each bet is the product of its factors, and the e-value is the mean capital. The chance that it
   ever reaches 1/alpha is at most alpha (Ville), so one may look as often as one likes and stop when one likes.
3. **e-detector** (Shiryaev-Roberts): each bet starts afresh at every event and all starts are added. Until something changes, it
   takes at least A events on average to reach A, and the chance of reaching it within t events is at most t/A.
4. Several e-values are judged together by e-BH, whatever the dependence between them.

For 0 and 1 the factors are likelihood ratios against a rate whose odds are `odds` times those of the budget.

Source: I. Waudby-Smith, A. Ramdas, arXiv:2010.09686; J. Shin, A. Ramdas, A. Rinaldo, arXiv:2203.03532; R. Wang, A. Ramdas,
arXiv:2009.02824; J. Ville (1939).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from auditgap.errors import UsageError
from auditgap.stats.checks import numbers

__all__ = [
    "ODDS",
    "EDetector",
    "EProcess",
    "MeanBets",
    "audited_value",
    "e_bh",
    "log_e_process",
    "mean_factors",
    "shiryaev_roberts",
    "stakes",
]

ODDS = (1.25, 1.5, 2.0, 3.0, 5.0, 8.0)
"""How much worse than its budget each bet expects the stream to be; the mixture loses at most log 6 to the best of them."""


def stakes(budget: float, odds: Sequence[float] = ODDS) -> NDArray[np.float64]:
    """What each bet stakes: the most that pays off if the odds are `odds` times those of the budget.

    Raises:
        UsageError: the budget is not strictly between 0 and 1, or the odds are none or not above 1.
    """
    if not 0.0 < budget < 1.0:
        raise UsageError(f"budget: expected a rate strictly between 0 and 1, such as 0.01, got {budget}; no bet can be made")
    ratios = numbers(odds, name="odds")
    if not (np.isfinite(ratios) & (ratios > 1.0)).all():
        raise UsageError(f"odds: expected finite numbers above 1, got {ratios.tolist()}; a bet must expect more than the budget")
    return (ratios - 1) / (1 + budget * (ratios - 1))


def mean_factors(values: ArrayLike, budget: float, odds: Sequence[float] = ODDS) -> NDArray[np.float64]:
    """What each bet is multiplied by at each event: one more axis than `values`, of the length of `odds`.

    Raises:
        UsageError: as `stakes`; or a value is outside [0, 1].
    """
    x = np.asarray(values, dtype=np.float64)
    if not ((x >= 0.0) & (x <= 1.0)).all():
        raise UsageError(f"values: expected all in [0, 1], got {x.min()} to {x.max()}; scale them by a bound known beforehand")
    return 1 + stakes(budget, odds) * (x[..., None] - budget)


def log_e_process(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm of the e-value after each event, from factors of shape (..., events, bets)."""
    capital = np.cumsum(np.log(factors), axis=-2)
    top = capital.max(axis=-1)
    return top + np.log(np.exp(capital - top[..., None]).mean(axis=-1))


def shiryaev_roberts(factors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural logarithm of the e-detector after each event, from factors of shape (..., events, bets); cut at 1e300."""
    capital = np.zeros(factors.shape[:-2] + factors.shape[-1:])
    values = np.empty(factors.shape[:-1])
    for t in range(factors.shape[-2]):
        capital = np.minimum((capital + 1) * factors[..., t, :], 1e300)
        values[..., t] = capital.mean(axis=-1)
    return np.log(values)


@dataclass(frozen=True, slots=True)
class MeanBets:
    """Bets against "the mean of each event, given those before, is at most `budget`", for events in [0, 1]."""

    budget: float
    odds: tuple[float, ...] = ODDS
    _stakes: tuple[float, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_stakes", tuple(stakes(self.budget, self.odds).tolist()))

    def factors(self, value: float) -> list[float]:
        """What each bet is multiplied by at this event.

        Raises:
            UsageError: the value is outside [0, 1].
        """
        if not 0.0 <= value <= 1.0:
            raise UsageError(f"expected a value in [0, 1], got {value}; scale it by a bound that was known beforehand")
        gain = value - self.budget
        return [1.0 + stake * gain for stake in self._stakes]


class EProcess:
    """The e-value of a stream, one event at a time; equal to `log_e_process` in constant memory."""

    __slots__ = ("log_value", "state")

    def __init__(self, n_bets: int, state: Sequence[float] | None = None) -> None:
        self.state = _state(n_bets, state)
        """Natural logarithm of the capital of each bet."""
        self.log_value = _log_mean(self.state)
        """Natural logarithm of the e-value now; 0 before the first event."""

    def update(self, factors: Sequence[float]) -> float:
        """Multiply each bet by its factor; the log e-value after it."""
        self.state = [log_capital + math.log(factor) for log_capital, factor in zip(self.state, factors, strict=True)]
        self.log_value = _log_mean(self.state)
        return self.log_value


class EDetector:
    """The Shiryaev-Roberts e-detector of a stream, one event at a time; equal to `shiryaev_roberts` in constant memory."""

    __slots__ = ("log_value", "state")

    def __init__(self, n_bets: int, state: Sequence[float] | None = None) -> None:
        self.state = _state(n_bets, state)
        """Capital of each bet, all its starts added; cut at 1e300."""
        if min(self.state) < 0.0:
            raise UsageError(f"expected a state of capital, at least 0 per bet, got {min(self.state)}")
        self.log_value = _log(sum(self.state) / n_bets)
        """Natural logarithm of the detector's value now; -1e9 before the first event."""

    def update(self, factors: Sequence[float]) -> float:
        """Let every bet start once more, then multiply each by its factor; the log value after it."""
        self.state = [min((capital + 1.0) * factor, 1e300) for capital, factor in zip(self.state, factors, strict=True)]
        self.log_value = math.log(sum(self.state) / len(self.state))
        return self.log_value


def audited_value(label: float | None, *, probability: float, floor: float) -> float:
    """What an audited event counts, so that a check of a known share of events speaks for all: `label * floor / probability`.

    Events are chosen with a `probability` that is fixed before the label is known and never below `floor`; an event that was not
    chosen has the label None and counts 0. If the rate of labels is at most p, the mean of these values is at most `p * floor`:
    that is the budget to bet against. Labels may come late, in any order that does not depend on them.

    Raises:
        UsageError: a label outside [0, 1], or not 0 < floor <= probability <= 1.

    Source: inverse probability weighting, D. G. Horvitz, D. J. Thompson, JASA 47 (1952) 663-685, scaled into [0, 1].
    """
    if not 0.0 < floor <= probability <= 1.0:
        raise UsageError(f"expected 0 < floor <= probability <= 1, got floor {floor} and probability {probability}")
    if label is None:
        return 0.0
    if not 0.0 <= label <= 1.0:
        raise UsageError(f"label: expected a value in [0, 1], or None where nobody looked, got {label}")
    return label * (floor / probability)


def e_bh(log_e_values: ArrayLike, *, alpha: float) -> NDArray[np.bool_]:
    """Which of several streams alarm: of those that do, at most a share alpha is false on average, however they depend.

    The k largest alarm for the largest k with `e_(k) >= n / (alpha k)`. Where every hypothesis holds, the
    chance of any alarm ever is at most alpha, because the mean of the e-values must then reach 1/alpha.

    Raises:
        UsageError: no e-values, NaN, or alpha not strictly between 0 and 1.
    """
    log_e = numbers(log_e_values, name="log_e_values")
    if not 0.0 < alpha < 1.0:
        raise UsageError(f"alpha: expected a chance strictly between 0 and 1, such as 0.01, got {alpha}")
    n = len(log_e)
    order = np.argsort(-log_e, kind="stable")
    bars = math.log(n / alpha) - np.log(np.arange(1, n + 1))
    passed = np.flatnonzero(log_e[order] >= bars)
    alarms = np.zeros(n, dtype=np.bool_)
    alarms[order[: passed[-1] + 1 if len(passed) else 0]] = True
    return alarms


def _state(n_bets: int, given: Sequence[float] | None) -> list[float]:
    if n_bets < 1 or (given is not None and (len(given) != n_bets or not all(map(math.isfinite, given)))):
        raise UsageError(f"expected a state of {max(n_bets, 1)} finite numbers, one per bet, got {given!r:.80}")
    return [0.0] * n_bets if given is None else list(given)


def _log(value: float) -> float:
    """The logarithm, for nothing a number so low that it can be stored and compared."""
    return math.log(value) if value > 0.0 else -1e9


def _log_mean(logs: list[float]) -> float:
    top = max(logs)
    return top + math.log(sum([math.exp(log - top) for log in logs]) / len(logs))

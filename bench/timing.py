"""CPU time on one thread, of variants run in turn, so that what slows one slows all.

Process CPU time, not wall time: other work on the machine then costs little. A ratio is taken within each repetition, in which
the variants ran one after the other in shuffled order; the median and quartiles of those ratios are reported.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

__all__ = ["Spread", "Timed", "cpu_seconds", "interleave", "ratios"]

Variant = Callable[[], object]
Timed = dict[str, list[float]]
"""Seconds per variant, in order of repetition."""


class Spread(NamedTuple):
    """A median with its quartiles."""

    median: float
    low: float
    high: float
    n: int


def cpu_seconds(variant: Variant) -> float:
    """Process CPU time of one call."""
    start = time.process_time()
    variant()
    return time.process_time() - start


def interleave(variants: Mapping[str, Variant], *, n_repetitions: int, seed: int = 0, warm_up: bool = True) -> Timed:
    """Each variant once per repetition, in an order shuffled anew."""
    order, generator = list(variants), random.Random(seed)
    found: Timed = {name: [] for name in variants}
    if warm_up:
        for variant in variants.values():
            variant()
    for _ in range(n_repetitions):
        generator.shuffle(order)
        for name in order:
            found[name].append(cpu_seconds(variants[name]))
    return found


def ratios(timed: Timed, above: str, below: str, *, scale: float = 1.0) -> Spread:
    """`above / below` per repetition, times `scale` (1 over the share of the work that `above` did)."""
    return spread([scale * a / b for a, b in zip(timed[above], timed[below], strict=True)])


def spread(values: list[float]) -> Spread:
    """Median and quartiles."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return Spread(median, low, high, len(values))

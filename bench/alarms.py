"""Time per event of each alarm detector, and whether a watch's memory grows."""

import gc
import random
import tracemalloc
from collections.abc import Sequence

from auditgap.alarms import AlarmPolicy, Watch, reference_from
from bench.rows import Row, measured
from bench.timing import cpu_seconds, spread

__all__ = ["alarm_rows"]

GOAL_US = 20.0
COMMON = {"response": "r", "owner": "o", "deadline_hours": 1}
ONCE = {"kind": "once", "alpha": 0.01}
CONTINUOUS = {"kind": "continuous", "average_run_length": 1_000_000_000}  # no alarm: an alarm is kept, and would be counted


def alarm_rows(*, n_repetitions: int = 15, n_events: int = 20_000) -> list[Row]:
    """Each detector on quiet events, through `Watch.feed`: checks, bets, detector, threshold."""
    generator = random.Random(0)
    reference = reference_from([generator.gauss(0, 1) for _ in range(1200)]).model_dump()
    shares = {**{f"c{index}": 0.2 for index in range(9)}, "other": 0.2}
    hits = [float(generator.random() < 0.005) for _ in range(n_events)]
    numbers = [generator.gauss(0, 1) for _ in range(n_events)]
    categories = [f"c{generator.randrange(9)}" for _ in range(n_events)]
    streams: dict[str, tuple[dict, Sequence[float | str]]] = {
        "rate, e-process": ({"signal": "refused", "budget": 0.01, **ONCE}, hits),
        "rate, e-detector": ({"signal": "refused", "budget": 0.01, **CONTINUOUS}, hits),
        "ten shares, e-detector": ({"signal": "kind", "shares": shares, **CONTINUOUS}, categories),
        "ranks in 20 bins, e-detector": ({"signal": "reply_chars", "reference": reference, **CONTINUOUS}, numbers),
    }
    rows = []
    for name, (stream, events) in streams.items():
        policy = AlarmPolicy.parse({"name": "bench", "streams": [{"name": "s", **stream, **COMMON}]}, where="bench")
        watch = Watch(policy)
        times_us = [
            1e6 * cpu_seconds(lambda watch=watch, events=events: _feed(watch, events)) / n_events for _ in range(n_repetitions)
        ]
        rows.append(
            measured(
                f"alarm update per event: {name}",
                spread(times_us),
                goal=GOAL_US,
                better="lower",
                unit="us",
                also={
                    f"growth of memory over {n_events:,} events, bytes": _growth(watch, events),
                },
            )
        )
    return rows


def _feed(watch: Watch, events: Sequence[float | str]) -> None:
    for event in events:
        watch.feed("s", event)


def _growth(watch: Watch, events: Sequence[float | str]) -> float:
    """Bytes that Python holds after another pass and did not before."""
    tracemalloc.start()
    _feed(watch, events)  # what was made before tracing began is replaced here
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    _feed(watch, events)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return float(after - before)

"""Measure how often each detector of `auditgap.alarms` is wrong and how late it is right; write the tables and figure.

`python docs/draw_alarms.py`: 2,000 streams of 20,000 events per row, each at the boundary of what its detector lets pass.
"""

import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from numpy.typing import NDArray

from auditgap.stats import clopper_pearson
from auditgap.stats.drift import SHARE_ODDS, conformal_ranks, quantile_edges, rank_factors
from auditgap.stats.eprocess import log_e_process, mean_factors, shiryaev_roberts

HERE = Path(__file__).parent
PAGE, FIGURE = HERE / "alarms.md", HERE / "figures" / "alarms.svg"
N_STREAMS, N_EVENTS, CHUNK = 2000, 20_000, 100
BUDGET, ALPHA, RUN_LENGTH = 0.01, 0.01, 20_000
N_DELAYS, BEFORE = 200, 5000
MANY_BINS, N_REFERENCE = 20, 1000
SHARES = (0.4, 0.3, 0.2, 0.1)

Array = NDArray[np.float64]
Factors = Callable[[np.random.Generator, int, int], Array]
"""(generator, streams, events) -> what each bet is multiplied by, of shape (streams, events, bets)."""


# null streams, each at its boundary


def rates(rng: np.random.Generator, n: int, t: int) -> Array:
    """Independent events at exactly the budget."""
    return mean_factors(rng.random((n, t)) < BUDGET, BUDGET)


def dependent(rng: np.random.Generator, n: int, t: int) -> Array:
    """Runs of alternating size: what an event can be depends on the last one, its mean does not."""
    x, size = np.zeros((n, t)), np.ones(n)
    for column in range(t):
        x[:, column] = np.where(rng.random(n) < BUDGET / size, size, 0.0)
        size = np.where(x[:, column] > 0, 0.1, 1.0)
    return mean_factors(x, BUDGET)


def scores(rng: np.random.Generator, n: int, t: int) -> Array:
    """Scores from Beta(1, 19), of mean 0.05, against a budget of 0.05."""
    return mean_factors(rng.beta(1, 19, (n, t)), 0.05)


def audited(rng: np.random.Generator, n: int, t: int) -> Array:
    """Labels at the budget, seen for a tenth of the events or, where they are likelier, for half."""
    is_likely = rng.random((n, t)) < 0.1
    label = rng.random((n, t)) < np.where(is_likely, 5.5, 0.5) * BUDGET
    probability = np.where(is_likely, 0.5, 0.1)
    seen = rng.random((n, t)) < probability
    return mean_factors(np.where(seen & label, 0.1 / probability, 0.0), 0.1 * BUDGET)


def shares(rng: np.random.Generator, n: int, t: int) -> Array:
    """Four categories, each at its share."""
    category = rng.choice(len(SHARES), p=SHARES, size=(n, t))
    return np.concatenate([mean_factors(category == c, share, SHARE_ODDS) for c, share in enumerate(SHARES)], axis=-1)


def ranks(rng: np.random.Generator, n: int, t: int, *, shift: float = 0.0, before: int = 0) -> Array:
    """Normal values against a reference of 1,000 of the same, drawn anew for each stream; after `before` they shift."""
    reference = rng.normal(size=(n, N_REFERENCE))
    x = rng.normal(size=(n, t))
    x[:, before:] += shift
    edges = [quantile_edges(row[::4], n_bins=MANY_BINS) for row in reference]
    bins = np.array([np.digitize(row, edge) for row, edge in zip(x, edges, strict=True)])
    counts = np.array(
        [
            np.bincount(np.digitize(np.delete(r, np.s_[::4]), e), minlength=MANY_BINS)
            for r, e in zip(reference, edges, strict=True)
        ]
    )
    return rank_factors(conformal_ranks(bins, counts, rng.random((n, t))))


NULLS: dict[str, Factors] = {
    "rate": rates,
    "rate, events depend on each other": dependent,
    "mean of scores": scores,
    "audited labels, weighted": audited,
    "shares of four categories": shares,
    "ranks against a reference": ranks,
}


# measuring


class Wrong(NamedTuple):
    """How often a detector alarmed on null streams."""

    detector: str
    stated: str
    alarmed: int
    n: int
    note: str = ""

    def row(self) -> str:
        """A line of the table."""
        interval = clopper_pearson(self.alarmed, self.n)
        share = f"{self.alarmed / self.n:.2%} ({interval.low:.2%}-{interval.high:.2%})"
        return f"| {self.detector} | {self.stated} | {share} | {self.note} |"


def chunks(n: int, seed: int) -> Iterator[tuple[np.random.Generator, int]]:
    """A generator and a number of streams at a time, so that memory stays small."""
    for index in range(0, n, CHUNK):
        yield np.random.default_rng((seed, index)), min(CHUNK, n - index)


def first_crossings(log_values: Array, bar: float) -> NDArray[np.int64]:
    """Events until each stream reached the bar; a number beyond all events if it never did."""
    reached = log_values >= bar
    return np.where(reached.any(1), reached.argmax(1) + 1, np.iinfo(np.int64).max)


def wrong_alarms(name: str, factors: Factors, seed: int) -> tuple[list[Wrong], NDArray[np.int64]]:
    """The e-process and the e-detector on the same null streams."""
    once, continuous = [], []
    for rng, n in chunks(N_STREAMS, seed):
        found = factors(rng, n, N_EVENTS)
        once.append(first_crossings(log_e_process(found), math.log(1 / ALPHA)))
        continuous.append(first_crossings(shiryaev_roberts(found), math.log(RUN_LENGTH)))
    a, b = np.concatenate(once), np.concatenate(continuous)
    quarter = RUN_LENGTH // 4
    watched = np.minimum(b, N_EVENTS).sum()
    n_alarms = int((b <= N_EVENTS).sum())
    length = f"{watched / n_alarms:,.0f} events watched per alarm" if n_alarms else "no alarm at all"
    return [
        Wrong(f"e-process: {name}", f"{ALPHA:.0%} ever", int((a <= N_EVENTS).sum()), len(a)),
        Wrong(f"e-detector: {name}", f"25% within {quarter:,}", int((b <= quarter).sum()), len(b), length),
    ], a


def naive(seed: int) -> tuple[list[Wrong], NDArray[np.int64]]:
    """A z-test of the rate at 1 %, made every 100 events or, as it is meant, once at the end."""
    found = []
    for rng, n in chunks(N_STREAMS, seed):
        hits = (rng.random((n, N_EVENTS)) < BUDGET).cumsum(1)[:, 99::100]
        looks = np.arange(100, N_EVENTS + 1, 100)
        found.append((hits - BUDGET * looks) / np.sqrt(looks * BUDGET * (1 - BUDGET)) >= 2.326)
    reached = np.concatenate(found)
    first = np.where(reached.any(1), (reached.argmax(1) + 1) * 100, np.iinfo(np.int64).max)
    return [
        Wrong("z-test every 100 events", "1% (nominal)", int(reached.any(1).sum()), len(reached), "not offered by auditgap"),
        Wrong("z-test once, at the end", "1% (nominal)", int(reached[:, -1].sum()), len(reached), "not offered by auditgap"),
    ], first


def families(seed: int, *, n_families: int = N_STREAMS, n_streams: int = 10) -> Wrong:
    """e-BH over ten null streams: any alarm at any time. From counts, because nothing else matters to a rate."""
    odds = np.array([1.25, 1.5, 2.0, 3.0, 5.0, 8.0])
    gain, cost = np.log(odds), np.log1p(BUDGET * (odds - 1))
    t = np.arange(1, N_EVENTS + 1)[:, None] * cost
    alarmed = 0
    for index in range(n_families):
        rng = np.random.default_rng((seed, index))
        hits = (rng.random((n_streams, N_EVENTS), dtype=np.float32) < BUDGET).cumsum(1)
        # between two hits capital only falls, so the moments of a hit are the only ones at which anything can cross
        moments = np.flatnonzero(np.diff(hits.sum(0), prepend=0))
        capital = hits[:, moments, None] * gain - t[moments]
        log_e = np.sort(np.log(np.exp(capital).mean(-1)), axis=0)[::-1]
        bars = np.log(n_streams / (ALPHA * np.arange(1, n_streams + 1)))[:, None]
        alarmed += bool((log_e >= bars).any())
    return Wrong("e-BH over ten rates, one family", f"{ALPHA:.0%} any, ever", alarmed, n_families)


class Delay(NamedTuple):
    """Events from a change to the alarm."""

    size: float
    median: float
    low: float
    high: float
    missed: float


def delays(
    log_values: Callable[[np.random.Generator, int, float], Array], sizes: Sequence[float], bar: float, before: int, seed: int
):
    """Median and first to ninth decile of the delay, per size of change; streams that alarmed before it are left out."""
    found = []
    for size in sizes:
        firsts = np.concatenate(
            [first_crossings(log_values(rng, n, size), bar) for rng, n in chunks(N_DELAYS, seed + round(1000 * size))]
        )
        after = firsts[firsts > before]
        delay = np.where(after > N_EVENTS, np.inf, after - before)
        low, median, high = np.quantile(delay, [0.1, 0.5, 0.9], method="inverted_cdf")
        found.append(Delay(size, float(median), float(low), float(high), float(np.isinf(delay).mean())))
    return found


def raised(rng: np.random.Generator, n: int, times: float, *, before: int) -> Array:
    """Rates that are `times` the budget after `before` events."""
    rate = np.where(np.arange(N_EVENTS) < before, BUDGET, times * BUDGET)
    return mean_factors(rng.random((n, N_EVENTS)) < rate, BUDGET)


# drawing


def draw(naive_first: NDArray[np.int64], ours_first: NDArray[np.int64], curves: dict[str, list[Delay]]) -> str:
    """False alarms over time, and delay over the size of the change."""
    with style.context(["default", {"svg.fonttype": "none", "svg.hashsalt": "auditgap", "font.size": 9}]):
        canvas = Figure(figsize=(9, 3.4), layout="constrained")
        left, right = canvas.subplots(1, 2)
        events = np.arange(100, N_EVENTS + 1, 100)
        for first, label, colour in ((naive_first, "z-test every 100 events", "#c1442f"), (ours_first, "e-process", "#2f7fc1")):
            left.plot(events, (first[:, None] <= events).mean(0), label=label, color=colour)
        left.axhline(ALPHA, color="#777", linestyle=":", label="stated: 1 %")
        left.set(xlabel="events", ylabel="streams with a false alarm", title="2,000 streams at the budget of 1 %")
        left.legend(frameon=False)
        for (label, found), colour in zip(curves.items(), ("#2f7fc1", "#2a9d57"), strict=False):
            seen = [d for d in found if math.isfinite(d.high)]
            right.plot([d.size for d in seen], [d.median for d in seen], marker="o", label=label, color=colour)
            right.fill_between([d.size for d in seen], [d.low for d in seen], [d.high for d in seen], alpha=0.2, color=colour)
        right.set(
            xscale="log", yscale="log", xlabel="rate after the change, times the budget of 1 %", ylabel="events to the alarm"
        )
        right.set_xticks([1.5, 2, 3, 5, 8, 16], ["1.5", "2", "3", "5", "8", "16"], minor=False)
        right.minorticks_off()
        right.set_title("delay: median, first to ninth decile")
        right.legend(frameon=False)
        drawn = io.StringIO()
        canvas.savefig(drawn, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"


def delay_rows(curves: dict[str, list[Delay]]) -> list[str]:
    """The table of delays."""
    rows = ["| detector | change | median events | first to ninth decile | not within the stream |", "|---|---|---|---|---|"]
    for name, found in curves.items():
        unit = "sd" if name.startswith("ranks") else "x"
        for d in found:
            median, low, high = (f"{v:,.0f}" if math.isfinite(v) else "-" for v in (d.median, d.low, d.high))
            rows.append(f"| {name} | {d.size:g} {unit} | {median} | {low}-{high} | {d.missed:.1%} |")
    return rows


def between_marks(text: str, name: str, lines: Sequence[str]) -> str:
    """The page with what stands between two marks replaced."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, _, rest = text.partition(begin)
    return f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{end}{rest.partition(end)[2]}"


def main() -> None:
    """Measure everything; two to four minutes on one core."""
    wrong, naive_first = naive(1)
    ours_first = naive_first
    for seed, (name, factors) in enumerate(NULLS.items(), start=10):
        found, first = wrong_alarms(name, factors, seed)
        wrong += found
        ours_first = first if name == "rate" else ours_first
        print(*(each.row() for each in found), sep="\n", file=sys.stderr)
    wrong.append(families(30))
    log_once, log_run = math.log(1 / ALPHA), math.log(RUN_LENGTH)
    times = (1.5, 2.0, 3.0, 5.0, 8.0, 16.0)
    curves = {
        "e-process, alpha 1 %, too high from the start": delays(
            lambda rng, n, size: log_e_process(raised(rng, n, size, before=0)), times, log_once, 0, 100
        ),
        f"e-detector, run length 20,000, change after {BEFORE:,}": delays(
            lambda rng, n, size: shiryaev_roberts(raised(rng, n, size, before=BEFORE)), times, log_run, BEFORE, 200
        ),
        f"ranks, e-detector, shift after {BEFORE:,}": delays(
            lambda rng, n, size: shiryaev_roberts(ranks(rng, n, N_EVENTS, shift=size, before=BEFORE)),
            (0.1, 0.2, 0.5, 1.0),
            log_run,
            BEFORE,
            300,
        ),
    }
    head = ["| detector | stated | streams with a false alarm (95 %) | also |", "|---|---|---|---|"]
    page = between_marks(PAGE.read_text(encoding="utf-8"), "false alarms", [*head, *(each.row() for each in wrong)])
    PAGE.write_text(between_marks(page, "delays", delay_rows(curves)), encoding="utf-8")
    FIGURE.write_text(draw(naive_first, ours_first, dict(list(curves.items())[:2])), encoding="utf-8")


if __name__ == "__main__":
    main()

"""One line of the table: what was asked for, what was measured, and what to think of it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from bench.timing import Spread

__all__ = ["Row", "measured", "missing"]


class Row(BaseModel):
    """A goal and what came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    goal: float | None
    """None: shown for comparison, without a goal."""
    better: Literal["lower", "higher"]
    """For ratios: `lower`: CPU time relative to the bare forward pass. `higher`: how many times less CPU time than the peer."""
    unit: Literal["x", "ms", "us"] = "x"
    """`x`: a ratio of CPU times; otherwise wall time per call or event."""
    median: float | None = None
    quartiles: tuple[float, float] | None = None
    n_repetitions: int = 0
    also: dict[str, float] = {}
    """Other numbers of the same runs, by name with unit."""
    note: str = ""
    """Why it is what it is, or why it was not measured."""

    @property
    def verdict(self) -> str:
        """In words, for the table."""
        if self.median is None:
            return "not measured"
        if self.goal is None:
            return "-"
        reached = self.median <= self.goal if self.better == "lower" else self.median >= self.goal
        return "reached" if reached else f"missed by {abs(self.median / self.goal - 1):.0%}"


def measured(
    name: str,
    spread: Spread,
    *,
    goal: float | None,
    better: Literal["lower", "higher"],
    note: str = "",
    also: dict[str, float] | None = None,
    unit: Literal["x", "ms", "us"] = "x",
) -> Row:
    """The row of a measured ratio or time."""
    return Row(
        name=name,
        goal=goal,
        better=better,
        unit=unit,
        median=round(spread.median, 3),
        quartiles=(round(spread.low, 3), round(spread.high, 3)),
        n_repetitions=spread.n,
        also={key: float(f"{value:.4g}") for key, value in (also or {}).items()},
        note=note,
    )


def missing(name: str, *, goal: float | None, better: Literal["lower", "higher"], reason: str) -> Row:
    """The row of something that could not be measured."""
    return Row(name=name, goal=goal, better=better, note=f"not measured: {reason}")

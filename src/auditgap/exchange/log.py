"""What every reader returns: one tool's numbers about one model, with the scores behind them.

Nothing here depends on the file's format: the same run written as `.eval` and as `.json` gives the same record and digest.
"""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from auditgap.records import Number, Record, UtcTime

__all__ = ["ImportedLog", "Metric", "Tool", "in_order"]

Tool = Literal["inspect-ai", "lm-eval", "garak", "promptfoo"]


class Metric(Record):
    """One number of a log, and what is needed to compute it again: the mean of `values`."""

    name: str
    """Lower-case, dotted, e.g. `match.accuracy`."""
    about: str
    """One sentence: what the mean of the values means."""
    stated: Number | None = None
    """The number that the log prints; None if it prints none that could be compared."""
    values: tuple[Number, ...] = ()
    groups: tuple[str, ...] = ()
    """Per value, the unit that it shares with other values: the sample over its epochs, the prompt over its generations."""
    pooled: bool = False
    """How the tool takes the mean: over all values alike (True), or over groups, each with the mean of its values (False)."""
    n_unscored: int = Field(default=0, ge=0)
    """Samples that the log holds without a score: errors, refusals of the grader."""
    missing: str = ""
    """Why there are no values; empty if there are."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if len(self.values) != len(self.groups) or bool(self.values) == bool(self.missing):
            raise ValueError(f"'{self.name}' needs one group per value, and either values or the reason why there are none")
        "".join(self.groups).encode()  # half a surrogate pair cannot be signed; its UnicodeEncodeError is a ValueError
        return self


def in_order(values: Sequence[float], groups: Sequence[str]) -> tuple[tuple[float, ...], tuple[str, ...]]:
    """Values and groups sorted by group, then value: the same scores give the same record, however the file orders them."""
    pairs = sorted(zip(groups, values, strict=True))
    return tuple(value for _, value in pairs), tuple(group for group, _ in pairs)


class ImportedLog(Record):
    """A log as it was read."""

    tool: Tool
    version: str
    """Of the tool that wrote it; `unknown` if the log does not say."""
    model: str
    """As the log names it."""
    revision: str = ""
    """Commit of the weights, where the log gives one."""
    task: str
    started_at: UtcTime | None
    finished_at: UtcTime | None
    packages: dict[str, str]
    """Library versions that the log records."""
    device: str = "unknown"
    dtype: str = "unknown"
    n_stated: int | None = Field(ge=0, lt=2**53)
    """Samples that the log says it has; None if it does not say."""
    n_held: int = Field(ge=0)
    """Samples that are in it."""
    unfinished: str = ""
    """Why the run did not end by itself; empty if it did."""
    withdrawn: str = ""
    """Why the log's own author withdrew it; empty if nobody did."""
    notes: tuple[str, ...] = ()
    """What a reader of the numbers must know: scores edited afterwards, entries replaced."""
    metrics: tuple[Metric, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [metric.name for metric in self.metrics]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"the log gives these numbers twice: {', '.join(repeated)}")
        "".join((*self.packages, *self.packages.values())).encode()
        return self

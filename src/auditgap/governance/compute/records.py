"""What was computed for a model, line by line, as a person writes it down.

A line is one activity. Its FLOP are stated, or follow from parameters and tokens, or from hardware; a `merge` or `parent` line
may instead name another model of the file, whose lines are then used. Nothing here says what counts: that is for the rule sets.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from auditgap.governance.compute.quantity import (
    Estimate,
    Flop,
    Hours,
    Passes,
    Peak,
    PlainScore,
    Score,
    Share,
    Tokens,
    Units,
    Weights,
    times,
)
from auditgap.records import Date, Number, Record

__all__ = ["Activity", "Capability", "Hardware", "Line", "ModelLedger", "Modification", "Output", "Parameters"]

Activity = Literal["update", "generation", "merge", "auxiliary", "diagnostic", "recompute", "parent"]
"""update: passes that change this model's weights. generation: passes that make its training data, discarded samples included.
merge: training of weights that it starts from or is averaged from. auxiliary: training of value or reward models. diagnostic:
evaluation, red teaming, trials that teach people only. recompute: activations computed twice. parent: training of a teacher."""
Output = Literal["non-public", "public", "logits-on-public-text"]
"""What a generation line made: data nobody else has, publicly accessible data, or a teacher's distributions on public text."""

FORWARD_ONLY: tuple[Activity, ...] = ("generation", "diagnostic", "recompute")
LINKS: tuple[Activity, ...] = ("merge", "parent")


class Parameters(Record):
    """Parameters of a model; a plain number is a dense model."""

    total: Weights
    active: Weights | None = None
    """Those that work on one token; left out, the model is dense. `auditgap compute config.json` counts both."""

    @property
    def per_token(self) -> Estimate:
        """The active parameters; all of them in a dense model."""
        return self.active or self.total

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.active is not None and self.active.high > self.total.high:
            raise ValueError(
                f"expected active <= total, got {self.active.high:g} active of {self.total.high:g}; correct one of them"
            )
        if self.per_token.low <= 0:
            raise ValueError("expected more than 0 parameters, got 0; write the number of the whole model, such as 7B")
        return self


class Hardware(Record):
    """A period with a constant number of accelerators: FLOP = units x hours x 3600 x peak x utilisation."""

    units: Units = Estimate.of(1.0)
    """Accelerators at work; leave it out if `hours` are accelerator-hours."""
    hours: Hours
    peak: Peak
    """FLOP/s of one unit at most, in the precision that was used."""
    utilisation: Share
    """Share of the peak that was achieved."""

    def flop(self) -> Estimate:
        """FLOP of the period."""
        return times(self.units, self.hours, Estimate.of(3600.0), self.peak, self.utilisation)


def _dense(value: object) -> object:
    """A plain number, or low, mid and high, is the total of a dense model."""
    if isinstance(value, str | int | float) or (isinstance(value, Mapping) and "mid" in value):
        return {"total": value}
    return value


def _periods(value: object) -> object:
    """One period may be written without a list."""
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, Mapping) else value


_Parameters = Annotated[Parameters, BeforeValidator(_dense)]
_Periods = Annotated[tuple[Hardware, ...], BeforeValidator(_periods)]


class Line(Record):
    """One activity and its FLOP, by exactly one method: `flop`, `hardware`, `tokens` (with parameters), or a linked `model`."""

    name: str
    activity: Activity
    output: Output | None = None
    """Of a generation line, and required there: it decides whether the line counts."""
    model: str | None = None
    """Another model of this file: whose weights are used (merge), who teaches (parent), or who generates (generation)."""
    flop: Flop | None = None
    """Stated FLOP, e.g. as published."""
    hardware: _Periods | None = None
    parameters: _Parameters | None = None
    """Of whatever computes; left out, those of the model (of the generating model on a generation line that names one)."""
    tokens: Tokens | None = None
    """Tokens that pass through; for generation all that were generated, discarded ones too."""
    epochs: Passes = Estimate.of(1.0)
    """How often the tokens pass."""
    flop_per_parameter_token: Number | None = Field(default=None, gt=0)
    """Default 6 (forward 2, backward 4); 2 for generation, diagnostic and recompute lines, which only go forward."""
    source: str = ""
    """Where the numbers come from: a measured log, a paper, an estimate."""

    @property
    def is_link(self) -> bool:
        """True if the FLOP are those of another model of the file."""
        return self.activity in LINKS and self.model is not None

    @property
    def method(self) -> Literal["stated", "hardware", "parameters x tokens", "other model"]:
        """How the FLOP are known."""
        if self.is_link:
            return "other model"
        return "stated" if self.flop else "hardware" if self.hardware else "parameters x tokens"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        given = [field for field in ("flop", "hardware", "tokens") if getattr(self, field) is not None]
        if self.is_link and given:
            raise ValueError(
                f"expected model alone, got {given[0]} too; '{self.model}' has lines of its own, so leave {given[0]} out"
            )
        if not self.is_link and len(given) != 1:
            raise ValueError(
                f"expected exactly one of flop, hardware, tokens, got {', '.join(given) or 'none'}; keep the best known"
            )
        if (self.activity == "generation") != (self.output is not None):
            raise ValueError(
                "expected output (non-public, public or logits-on-public-text) on generation lines and nowhere else, got "
                f"{self.output or 'none'} on {self.activity}; {'remove' if self.output else 'add'} it"
            )
        if self.model is not None and self.activity not in (*LINKS, "generation"):
            raise ValueError(f"expected model on merge, parent or generation lines only, got it on {self.activity}; remove it")
        if unused := [
            f for f in ("parameters", "flop_per_parameter_token") if getattr(self, f) is not None and self.tokens is None
        ]:
            raise ValueError(f"expected tokens beside {unused[0]}, got none; add tokens, or remove {unused[0]}")
        return self


class Capability(Record):
    """A benchmark result and the bar that was set for it: evidence of what the model can do, whatever it cost."""

    benchmark: str
    score: Score
    bar: PlainScore
    better: Literal["higher", "lower"] = "higher"
    """Which scores mean more capability."""
    registered: Date
    """The day on which the bar was set."""
    measured: Date
    source: str = ""


class Modification(Record):
    """What was modified, if this model is a changed version of another: exactly one of `of`, `original_flop`, `original`."""

    of: str | None = None
    """A model of this file."""
    original_flop: Flop | None = None
    original: Literal["systemic-risk, compute unknown", "other, compute unknown"] | None = None
    same_provider: bool = False
    """True if the original's own provider changed it: the same model life cycle, no new provider."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [field for field in ("of", "original_flop", "original") if getattr(self, field) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of of, original_flop, original, got {', '.join(given) or 'none'}")
        return self


class ModelLedger(Record):
    """Everything that was computed for one model."""

    name: str
    parameters: _Parameters | None = None
    lines: tuple[Line, ...]
    capability: tuple[Capability, ...] = ()
    modification: Modification | None = None

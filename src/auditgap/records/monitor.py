"""What a monitor is, how it was calibrated and on what: the card that is signed; and the policy that says what a flag does."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from auditgap.records.base import Digest, Number, Record, UtcTime
from auditgap.records.measurement import Interval, Measurement, NotMeasured
from auditgap.records.registration import DataRef
from auditgap.records.subject import Subject

__all__ = [
    "Action",
    "Aggregation",
    "AggregationKind",
    "Engine",
    "MonitorCard",
    "MonitorPolicy",
    "MonitorProbe",
    "OperatingPoint",
    "PositionPolicy",
    "Steering",
]

PositionPolicy = Literal["prompt_end", "generated", "every_token"]
"""Which tokens are scored: the last of the prompt; that and every new one; every token of prompt and reply."""

AggregationKind = Literal["last", "mean", "max", "rolling_mean_max", "ema", "multi_max", "softmax"]

Action = Literal["log", "stop", "refuse", "escalate", "steer"]
"""What a flag does. log: nothing but the record. stop: end the reply. refuse: end it with a fixed text. escalate: the same, and
name the request to a person. steer: add a registered direction to the stream from here on."""


class Aggregation(Record):
    """How the scores of a request's tokens become one number, after every token."""

    kind: AggregationKind
    window: int = Field(default=8, ge=1)
    """Tokens of a rolling mean (`rolling_mean_max`); fewer where a request has fewer."""
    decay: Annotated[Number, Field(ge=0.0, lt=1.0)] = 0.8
    """Weight of what came before (`ema`)."""
    temperature: Annotated[Number, Field(gt=0.0)] = 1.0
    """In units of the score (`softmax`): near 0 it is the maximum, far above the scores' spread the mean."""


class Engine(Record):
    """What computed the activations. A monitor that was calibrated on one says nothing on another."""

    name: str
    """`transformers`, `vllm`, ..."""
    version: str
    dtype: str
    flags: dict[str, str]
    """What could move an activation or hide one: attention kernel, device, matmul precision, prefix cache, quantisation."""

    def differences(self, other: Self) -> tuple[str, ...]:
        """What differs, in words; none if both are the same."""
        fields = [(name, getattr(self, name), getattr(other, name)) for name in ("name", "version", "dtype")]
        flags = sorted({*self.flags, *other.flags})
        fields += [(f"flag {name}", self.flags.get(name, "not set"), other.flags.get(name, "not set")) for name in flags]
        return tuple(f"engine {name}: calibrated on {ours}, here {theirs}" for name, ours, theirs in fields if ours != theirs)


class MonitorProbe(Record):
    """One linear read-out; its weights lie in the artefact's safetensors file under its name."""

    name: str = Field(pattern=r"^[\w.-]+$")
    site: str
    """`resid_post.3`."""
    val_auroc: Number
    """The AUROC on `val` that chose the site."""


class OperatingPoint(Record):
    """A threshold for a false-positive rate that was named before the scores were seen. An alarm is a score above it."""

    max_fpr: Number = Field(gt=0, lt=1)
    confidence: Number
    """Chance that calibration prompts are such that the rate holds on new ones like them."""
    threshold: Number
    n_calibration: int
    """Independent negatives that set it."""
    n_exceeding: int
    """How many of those lie above it."""
    calibration_fpr: Interval
    """Where the rate lies by the calibration negatives alone, exact at `confidence` on the upper side."""
    test_fpr: Measurement
    """Share of all test negatives above it: groups that neither fitted, chose nor set anything."""
    test_fpr_contrast: Measurement
    """The same among the contrast set's own negatives, which are the hard ones; ordinary traffic is left out."""
    test_tpr: Measurement
    """Share of the test positives above it."""


class MonitorCard(Record):
    """A monitor as it was fitted and calibrated. Signed; its weights lie beside it under their digest."""

    schema_version: Literal["auditgap.dev/monitor/v1"] = "auditgap.dev/monitor/v1"
    name: str = Field(pattern=r"^[\w.-]+$")
    version: str
    watches: str
    """What a high score means, in one sentence."""
    subject: Subject
    """The model, tokenizer, template and dtype that it was calibrated on; on any other it is uncalibrated."""
    engine: Engine
    probes: tuple[MonitorProbe, ...] = Field(min_length=1)
    weights: Digest
    """Of the safetensors file."""
    position: PositionPolicy
    aggregation: Aggregation
    max_new_tokens: int = Field(ge=0)
    """Length of the replies in calibration; a longer reply has more chances of an alarm than the rate accounts for."""
    operating_points: tuple[OperatingPoint, ...]
    unavailable: tuple[NotMeasured, ...] = ()
    """Rates that were asked for and could not be had, and why."""
    auroc: Measurement
    """On the contrast set's `test` rows; ordinary traffic, which is easy to tell from either class, is left out."""
    data: tuple[DataRef, ...] = Field(min_length=1)
    """The contrast set, and the ordinary traffic if any was given."""
    blind_spots: tuple[str, ...] = Field(min_length=1)
    seed: int = Field(ge=0)
    fitted_at: UtcTime

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [probe.name for probe in self.probes]
        if len(set(names)) < len(names):
            raise ValueError(f"expected probes of distinct names, got {', '.join(names)}")
        return self

    def at(self, max_fpr: float) -> OperatingPoint | None:
        """The operating point of that rate, or None."""
        return next((point for point in self.operating_points if point.max_fpr == max_fpr), None)


class Steering(Record):
    """A direction that was registered by digest, and where and how strongly it is added."""

    site: str
    direction: Digest
    """Of the float32 bytes."""
    scale: Number


class MonitorPolicy(Record):
    """What a flag does, and what happens where the monitor cannot speak. The default logs, and fails closed when it is down."""

    max_fpr: Number = Field(default=0.01, gt=0, lt=1)
    """The operating point in use."""
    action: Action = "log"
    text: str = ""
    """What takes the place of the reply (`refuse`, `escalate`)."""
    steering: Steering | None = None
    when_down: Literal["refuse", "pass"] = "refuse"
    """On a model it was not calibrated on: refuse to generate, or generate unwatched and report a coverage of 0."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.action in ("refuse", "escalate") and not self.text.strip():
            raise ValueError(f"action '{self.action}' needs the text that takes the reply's place")
        if (self.action == "steer") != (self.steering is not None):
            raise ValueError("steering belongs to the action 'steer', and to it alone")
        return self

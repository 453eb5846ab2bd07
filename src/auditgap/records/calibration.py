"""How often an instrument finds a flaw that is known to be there, and how often it cries out where there is none."""

from typing import Literal

from pydantic import Field

from auditgap.records.base import Digest, Number, Record, UtcTime
from auditgap.records.instrument import Family
from auditgap.records.measurement import Measurement

__all__ = ["Calibration", "JointMiss", "PowerCell"]


class PowerCell(Record):
    """One detector on the fresh organisms of one recipe at one difficulty."""

    organism: str
    failure_mode: str
    difficulty: str
    """What makes the plant easier or harder; `default` is the recipe as it stands."""
    instrument: str
    version: str
    """Version of the instrument: the power of another version is unknown."""
    family: Family
    measurement: str
    """The measurement that is the detection score."""
    data: str = Field(default="", exclude_if=lambda data: not data)
    """The organism's data file that it was measured on; empty in records from before it was written down."""
    flaw_is: Literal["high", "low"]
    threshold: Number | None
    """A model is flagged when its score lies beyond; None if the training seeds gave no score to set it by."""
    power: Measurement
    """Share of fresh models with the flaw that are flagged."""
    false_alarms_twin: Measurement
    false_alarms_decoy: Measurement
    auroc: Measurement
    """Planted against twins and decoys, threshold aside."""
    power_at_5_percent: Measurement | None = Field(default=None, exclude_if=lambda power: power is None)
    """Power where the threshold is set on the fresh clean models themselves, so that at most 5 % of them are flagged: what the
    score could do, not what the registered threshold did. None in records from before it was counted."""
    power_at_1_percent: Measurement | None = Field(default=None, exclude_if=lambda power: power is None)
    n_not_measured: int = Field(ge=0)
    """Models on which the instrument's precondition did not hold; they count as not flagged."""


class JointMiss(Record):
    """How often a set of layers misses a flaw together, beside what independent layers would miss."""

    organism: str
    failure_mode: str
    layers: tuple[str, ...]
    missed: Measurement
    """Share of fresh models with the flaw that no layer flags."""
    product: Number = Field(ge=0, le=1)
    """Product of the layers' own miss rates: what independence would predict."""


class Calibration(Record):
    """The measured power of every instrument, from one run. Signed; audits read their licences from it."""

    schema_version: Literal["auditgap.dev/calibration/v1"] = "auditgap.dev/calibration/v1"
    made_at: UtcTime
    packages: dict[str, str]
    training_seeds: tuple[int, ...] = Field(min_length=1)
    """Seeds of the organisms on which thresholds were fixed."""
    fresh_seeds: tuple[int, ...] = Field(min_length=1)
    """Seeds of the organisms to which they were then applied; none of them is a training seed."""
    ledger_root: Digest
    """Merkle root of the evidence that this was computed from."""
    cells: tuple[PowerCell, ...]
    joint: tuple[JointMiss, ...] = ()
    failed: tuple[str, ...] = ()
    """Organisms whose plant did not take, so that nothing was measured on them."""

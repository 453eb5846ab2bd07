"""How strong a claim each instrument may carry today: a versioned table, and the access that it caps.

`licence(instrument, claim)` is the lower of the method's ceiling (the row for the claim's modality and realm) and the measured
power. Only the model axis is capped: no instrument makes weights say more by being run for longer or by someone else.
"""

from functools import cache
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from auditgap.governance.document import by_id, parse
from auditgap.governance.failure_mode import Citation
from auditgap.records import (
    Access,
    Axis,
    Claim,
    Date,
    Family,
    Modality,
    ModelAccess,
    Number,
    Pin,
    Property,
    Realm,
    Record,
    Tier,
)

__all__ = [
    "InstrumentLicence",
    "LicenceRow",
    "Licences",
    "Obtainable",
    "Power",
    "beyond_behaviour",
    "licence",
    "licences",
    "obtainable",
    "powered",
]

FOLDER = Path(__file__).parent


class LicenceRow(Record):
    """What an instrument may carry for one kind of claim."""

    modality: Modality
    realm: Realm
    model: ModelAccess
    """The model access that a valid result may be credited with."""
    needs_power: bool
    """True: without measured power a valid result is credited with text alone (M1)."""
    carries_at: Tier
    """The tier of evidence from which the claim counts as supported."""
    max_tier: Tier
    """The highest tier the method can reach for this kind of claim."""


class Power(Record):
    """How often the instrument found one planted failure mode on organisms."""

    failure_mode: str
    lower_bound: Number = Field(ge=0, le=1)
    """Lower end of the 95 % interval of the detection rate."""
    difficulty: str
    """Kind, size and strength of the plant: power carries over only to flaws like these."""
    source: str
    """Digest or address of the calibration that measured it."""


class InstrumentLicence(Record):
    """The licence of one instrument."""

    id: str
    """The instrument's name."""
    family: Family
    needs: ModelAccess
    """The access with which it reads the model."""
    owes: tuple[Property, ...] = ()
    """Properties whose absence makes its evidence fragile, whatever the claim."""
    citations: tuple[Citation, ...] = Field(min_length=1)
    rows: tuple[LicenceRow, ...]
    power: tuple[Power, ...] = ()
    """Empty until the instrument was calibrated on organisms."""

    @model_validator(mode="after")
    def _searches_need_power(self) -> Self:
        kinds = [(row.modality, row.realm) for row in self.rows]
        if repeated := {f"{m}/{r}" for m, r in kinds if kinds.count((m, r)) > 1}:
            raise ValueError(f"'{self.id}' has two rows for {', '.join(sorted(repeated))}; keep one")
        for row in self.rows:
            if row.modality in ("absence", "universal") and not row.needs_power:
                raise ValueError(f"'{self.id}' carries {row.modality} claims without measured power; set needs_power: true")
        return self

    def row(self, claim: Claim) -> LicenceRow | None:
        """The row for this claim's modality and realm, or None: then the instrument carries nothing for it."""
        return next((row for row in self.rows if (row.modality, row.realm) == (claim.modality, claim.realm)), None)

    def power_on(self, failure_mode: str) -> float | None:
        """The lowest measured power over the difficulties tried; None if it was never measured."""
        return min((p.lower_bound for p in self.power if p.failure_mode == failure_mode), default=None)

    def power_for(self, claim: Claim) -> float | None:
        """The power on the claim's weakest failure mode; None if one of them was never measured, or the claim names none."""
        found = [self.power_on(mode) for mode in claim.failure_modes]
        measured = [power for power in found if power is not None]
        return min(measured) if measured and len(measured) == len(found) else None


class Licences(Record):
    """The state of the science in one versioned table."""

    version: str
    sources: tuple[Citation, ...] = Field(min_length=1)
    review_date: Date
    instruments: tuple[InstrumentLicence, ...]

    def find(self, instrument: str) -> InstrumentLicence | None:
        """The licence of that instrument, or None: what is not in the table carries nothing."""
        return next((entry for entry in self.instruments if entry.id == instrument), None)


class Obtainable(Record):
    """The most that a third party can obtain today, per axis, and where that was read."""

    sources: tuple[Citation, ...] = Field(min_length=1)
    review_date: Date
    access: Access
    pins: dict[Axis, Pin]
    notes: dict[Axis, str] = Field(default_factory=dict)


@cache
def licences(path: Path = FOLDER / "licences.yaml") -> Licences:
    """The licence table.

    Raises:
        PlanError: the file is malformed, names an instrument twice, or lets an absence claim stand without power.
    """
    table = parse(path, Licences)
    by_id(path, table.instruments)
    return table


@cache
def obtainable(path: Path = FOLDER / "obtainable.yaml") -> Obtainable:
    """The best obtainable access.

    Raises:
        PlanError: the file is malformed.
    """
    return parse(path, Obtainable)


def beyond_behaviour(claim: Claim) -> bool:
    """True for claims that no number of good answers can establish: latent, long-horizon, absence and universal ones."""
    return claim.realm != "observable" or claim.modality in ("absence", "universal")


def powered(instrument: str, claim: Claim, table: Licences, *, min_power: float) -> bool:
    """True if the instrument needs no measured power for this claim, or has enough of it on every failure mode."""
    entry = table.find(instrument)
    row = entry.row(claim) if entry else None
    if entry is None or row is None:
        return False
    power = entry.power_for(claim)
    return not row.needs_power or (power is not None and power >= min_power)


def licence(instrument: str, claim: Claim, table: Licences, *, min_power: float) -> Access:
    """The most access that a valid result of this instrument is credited with for this claim.

    M0 if the table has no row for it. A behavioural instrument gets at most M1 (text) or M2 (logits) beyond behaviour.
    A row that needs power gets M1 until a power of at least `min_power` was measured on every failure mode of the claim.
    """
    entry = table.find(instrument)
    row = entry.row(claim) if entry else None
    caps = [row.model if row else ModelAccess.M0]
    if entry and row:
        if entry.family == "behavioural" and beyond_behaviour(claim):
            caps.append(ModelAccess.M2 if entry.needs.rank >= ModelAccess.M2.rank else ModelAccess.M1)
        if not powered(instrument, claim, table, min_power=min_power):
            caps.append(ModelAccess.M1)
    return Access.top().model_copy(update={"model": min(caps, key=lambda level: level.rank)})

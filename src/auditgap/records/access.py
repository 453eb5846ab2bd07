"""How much of a subject an auditor could reach: six axes, compared componentwise.

A vector, never one level: weights without time are not better than time without weights. The axes build on arXiv:2401.14446,
arXiv:2601.11916 and the EU GPAI Code of Practice, Appendix 3.4; the vector form is ours.
"""

from enum import StrEnum
from typing import Literal, Self

from auditgap.records.base import Record

__all__ = ["AXES", "Access", "Axis", "Deployment", "Independence", "Information", "ModelAccess", "Variants"]


class _Level(StrEnum):
    """A closed choice whose members are ordered as written."""

    @property
    def rank(self) -> int:
        return list(type(self)).index(self)

    @classmethod
    def at(cls, rank: int) -> Self:
        return list(cls)[rank]


class ModelAccess(_Level):
    """What of the model can be read or changed."""

    M0 = "M0"  # nothing
    M1 = "M1"  # sampled text
    M2 = "M2"  # logits and chain of thought
    M3 = "M3"  # activations read
    M4 = "M4"  # gradients, and activations written
    M5 = "M5"  # weights, and fine-tuning
    M6 = "M6"  # also the checkpoint from before a training stage


class Variants(_Level):
    """Which versions of the model were reachable."""

    DEPLOYED = "deployed"
    FEWEST_MITIGATIONS = "fewest-mitigations"


class Information(_Level):
    """What the auditor was told."""

    NONE = "none"
    DOCS = "docs"
    DATA_SUMMARY = "data-summary"
    FULL = "full"


class Deployment(_Level):
    """How close the audited system is to the one that serves people."""

    BARE = "bare"
    SHIPPED_STACK = "shipped-stack"
    PRODUCTION_SAMPLE = "production-sample"


class Independence(_Level):
    """Who measured."""

    SELF = "self"
    SECOND_LINE = "second-line"
    CONTRACTED = "contracted"
    EXTERNAL = "external"


Axis = Literal["model", "variants", "information", "deployment", "time", "independence"]
AXES: tuple[Axis, ...] = ("model", "variants", "information", "deployment", "time", "independence")


class Access(Record):
    """A point in the access lattice; the default is the bottom."""

    model: ModelAccess = ModelAccess.M0
    variants: Variants = Variants.DEPLOYED
    information: Information = Information.NONE
    deployment: Deployment = Deployment.BARE
    time: int = 0
    """Business days of access before the decision."""
    independence: Independence = Independence.SELF

    def rank(self, axis: Axis) -> int:
        """Position on one axis: level index, or business days for `time`."""
        value = getattr(self, axis)
        return value if isinstance(value, int) else value.rank

    def meet(self, other: Self) -> Self:
        """The componentwise lower of two: what holds under both limits."""
        return type(self)(**{axis: min(getattr(self, axis), getattr(other, axis), key=_rank) for axis in AXES})

    def join(self, other: Self) -> Self:
        """The componentwise higher of two: what either gives."""
        return type(self)(**{axis: max(getattr(self, axis), getattr(other, axis), key=_rank) for axis in AXES})

    def covers(self, other: Self) -> bool:
        """True if this reaches at least `other` on every axis."""
        return all(self.rank(axis) >= other.rank(axis) for axis in AXES)

    @classmethod
    def top(cls) -> Self:
        """The most that anyone could ask for (`time` is a year of business days)."""
        return cls(
            model=ModelAccess.M6,
            variants=Variants.FEWEST_MITIGATIONS,
            information=Information.FULL,
            deployment=Deployment.PRODUCTION_SAMPLE,
            time=250,
            independence=Independence.EXTERNAL,
        )


def _rank(value: _Level | int) -> int:
    return value if isinstance(value, int) else value.rank

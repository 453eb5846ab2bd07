"""How much doubt remains in a leaf, by support and tier: a table that says who entered its numbers."""

from functools import cache
from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from auditgap.governance.document import parse
from auditgap.governance.failure_mode import Citation
from auditgap.records import Date, Number, Record, Support, Tier

__all__ = ["DoubtTable", "doubt_table"]

SHIPPED = Path(__file__).parent / "doubt.yaml"


class DoubtTable(Record):
    """Doubt per tier, 0 to 5, for evidence that supports a claim and for evidence that partially does."""

    entered_by: str = Field(min_length=1)
    """Who stands for the numbers."""
    review_date: Date
    sources: tuple[Citation, ...] = Field(min_length=1)
    supported: tuple[Number, ...] = Field(min_length=6, max_length=6)
    partially_supported: tuple[Number, ...] = Field(min_length=6, max_length=6)

    @model_validator(mode="after")
    def _better_evidence_never_raises_doubt(self) -> Self:
        for name, column in (("supported", self.supported), ("partially_supported", self.partially_supported)):
            if any(not 0 <= doubt <= 1 for doubt in column) or list(column) != sorted(column, reverse=True):
                raise ValueError(f"{name}: expected six numbers in [0, 1] that never rise from tier 0 to 5, got {list(column)}")
        if any(full > partial for full, partial in zip(self.supported, self.partially_supported, strict=True)):
            raise ValueError("supported leaves more doubt than partially_supported at the same tier; swap them")
        return self

    def doubt(self, support: Support, tier: Tier) -> float:
        """What remains of the doubt in one leaf; 1 unless the evidence speaks for the claim and nothing speaks against it."""
        if support == "supported":
            return self.supported[tier]
        return self.partially_supported[tier] if support == "partially-supported" else 1.0


@cache
def doubt_table(path: Path = SHIPPED) -> DoubtTable:
    """The table in a file; the shipped one is ours and uncalibrated.

    Raises:
        PlanError: the file is malformed, or better evidence would leave more doubt.
    """
    return parse(path, DoubtTable)

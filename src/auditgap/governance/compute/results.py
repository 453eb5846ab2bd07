"""What an assessment says: totals, verdicts, decisions with their place in the text, and what FLOP do not see."""

from typing import Literal

from auditgap.governance.compute.ledger import LineFlop
from auditgap.governance.compute.lineage import Ancestor, Decision
from auditgap.governance.compute.quantity import Estimate
from auditgap.governance.compute.records import Activity, Output
from auditgap.governance.compute.rules import FlopLine
from auditgap.governance.compute.triggers import CapabilityResult, RouteResult, Verdict
from auditgap.records import Number, Pin, Record, Verified

__all__ = ["ComputeReport", "FlopLineResult", "LineResult", "ModelResult", "ModifierResult", "RegimeResult", "Total"]

DISCLAIMER = "A documentation aid, not legal advice. FLOP do not see capability."


class Total(Record):
    """Training compute in FLOP under one way of counting."""

    counted: Estimate
    with_open: Estimate
    """With the lines on which the text is silent."""
    all_parameters: Estimate
    """`counted`, as if every parameter worked on every token: the upper end for a mixture of experts."""


class LineResult(Record):
    """One line under one rule set."""

    line: str
    activity: Activity
    output: Output | None
    method: str
    model: str | None
    flop: LineFlop
    decision: Decision
    why: str
    pin: Pin
    verified: Verified


class FlopLineResult(Record):
    """One line of a regime against one model."""

    line: FlopLine
    total: Total
    tolerance: Estimate
    """The regime's tolerance about the mid of `counted`."""
    low_flop: Number
    """The least that the compute may be: estimate and tolerance together."""
    high_flop: Number
    """The most that it may be, open lines included."""
    verdict: Verdict
    best_estimate: Literal["below", "above", "open"]
    """The side of the mid alone; `open` if it depends on the open lines."""
    all_parameters: Literal["below", "above"]
    """The side of the mid if every parameter worked on every token."""
    blind_spot: str | None = None


class ModifierResult(Record):
    """Whether a change is large enough to make its author the provider of the changed model."""

    modification: Estimate
    """FLOP of the change: this model's own lines that count or are open, without the original's."""
    original: Estimate | None
    """FLOP of the original; None where it is unknown and the fallback stands for it."""
    line: Estimate
    verdict: Literal["below", "above", "straddles", "same provider"]
    meaning: str
    pin: Pin
    verified: Verified


class RegimeResult(Record):
    """One model under one rule set."""

    rule_set: str
    title: str
    edition: str
    status: str
    lines: tuple[LineResult, ...]
    flop_lines: tuple[FlopLineResult, ...]
    modifier: ModifierResult | None = None
    routes: tuple[RouteResult, ...] = ()


class ModelResult(Record):
    """One model under every rule set asked for."""

    model: str
    ancestors: tuple[Ancestor, ...]
    capability: tuple[CapabilityResult, ...]
    regimes: tuple[RegimeResult, ...]
    notes: tuple[str, ...] = ()


class ComputeReport(Record):
    """A whole ledger."""

    models: tuple[ModelResult, ...]
    disclaimer: str = DISCLAIMER

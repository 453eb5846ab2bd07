"""Training compute under legal counting rules: a ledger of activities, rule sets, verdicts, lineage, and what FLOP do not see."""

from auditgap.governance.compute.assess import assess, total
from auditgap.governance.compute.ledger import Ledger, LineFlop, line_flop, one_run, read_ledger
from auditgap.governance.compute.lineage import Ancestor, Decision, Relation, ancestors
from auditgap.governance.compute.quantity import Estimate, show
from auditgap.governance.compute.records import (
    Activity,
    Capability,
    Hardware,
    Line,
    ModelLedger,
    Modification,
    Output,
    Parameters,
)
from auditgap.governance.compute.results import (
    ComputeReport,
    FlopLineResult,
    LineResult,
    ModelResult,
    ModifierResult,
    RegimeResult,
    Total,
)
from auditgap.governance.compute.rules import (
    CapabilityRoute,
    FlopLine,
    ModifierRule,
    Rule,
    RuleSet,
    Tolerance,
    rule_sets,
    rules_for,
)
from auditgap.governance.compute.triggers import CapabilityResult, RouteResult, Verdict, capability_result

__all__ = [
    "Activity",
    "Ancestor",
    "Capability",
    "CapabilityResult",
    "CapabilityRoute",
    "ComputeReport",
    "Decision",
    "Estimate",
    "FlopLine",
    "FlopLineResult",
    "Hardware",
    "Ledger",
    "Line",
    "LineFlop",
    "LineResult",
    "ModelLedger",
    "ModelResult",
    "Modification",
    "ModifierResult",
    "ModifierRule",
    "Output",
    "Parameters",
    "RegimeResult",
    "Relation",
    "RouteResult",
    "Rule",
    "RuleSet",
    "Tolerance",
    "Total",
    "Verdict",
    "ancestors",
    "assess",
    "capability_result",
    "line_flop",
    "one_run",
    "read_ledger",
    "rule_sets",
    "rules_for",
    "show",
    "total",
]

"""Safety cases: an argument with its evidence and its defeaters, how much doubt remains, and whether it still stands today."""

from auditgap.governance.safety_case.arguments import Argument, arguments
from auditgap.governance.safety_case.doubt import JudgedCase, Standing, judge_case, propagate
from auditgap.governance.safety_case.holdings import holdings
from auditgap.governance.safety_case.leaves import Health, Leaf, Timeliness, judge_leaf
from auditgap.governance.safety_case.records import (
    ArgumentName,
    Case,
    Citing,
    Defeater,
    DefeaterKind,
    EnteredDoubt,
    Goal,
    Kind,
    Node,
    Note,
    Solution,
    Strategy,
)
from auditgap.governance.safety_case.risk import Mitigation, Residual, Risk, RiskReport, Section, load_risks, sections
from auditgap.governance.safety_case.sacm import sacm
from auditgap.governance.safety_case.structure import complaints, descendants, load_case
from auditgap.governance.safety_case.table import DoubtTable, doubt_table

__all__ = [
    "Argument",
    "ArgumentName",
    "Case",
    "Citing",
    "Defeater",
    "DefeaterKind",
    "DoubtTable",
    "EnteredDoubt",
    "Goal",
    "Health",
    "JudgedCase",
    "Kind",
    "Leaf",
    "Mitigation",
    "Node",
    "Note",
    "Residual",
    "Risk",
    "RiskReport",
    "Section",
    "Solution",
    "Standing",
    "Strategy",
    "Timeliness",
    "arguments",
    "complaints",
    "descendants",
    "doubt_table",
    "holdings",
    "judge_case",
    "judge_leaf",
    "load_case",
    "load_risks",
    "propagate",
    "sacm",
    "sections",
]

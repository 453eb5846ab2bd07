"""Integrity cases: what must hold when a tool stack goes wrong, and whether it did."""

from auditgap.release.cases.case import Case, Stimulus, load_cases, load_stimuli, shipped
from auditgap.release.cases.lint import checked, lint
from auditgap.release.cases.oracle import World, adherence, judge
from auditgap.release.cases.running import Trial, run_case, try_once
from auditgap.release.cases.session import REFERENCE, Agent, Session, Stack, System, load_agent
from auditgap.release.cases.suite import Suite, load_suite, register, removed_in_turn, run_suite

__all__ = [
    "REFERENCE",
    "Agent",
    "Case",
    "Session",
    "Stack",
    "Stimulus",
    "Suite",
    "System",
    "Trial",
    "World",
    "adherence",
    "checked",
    "judge",
    "lint",
    "load_agent",
    "load_cases",
    "load_stimuli",
    "load_suite",
    "register",
    "removed_in_turn",
    "run_case",
    "run_suite",
    "shipped",
    "try_once",
]

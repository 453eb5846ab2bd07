"""What an alarm opens, and what closes it: a regression case that fails on the bad release and passes on the fix."""

from auditgap.incidents.clocks import Regime, clocks_for, regimes
from auditgap.incidents.closing import Closed, Proof, close_incident, prove
from auditgap.incidents.corpus import add_case, read_case, with_case, write_case
from auditgap.incidents.dossier import Dossier, dossiers, find
from auditgap.incidents.escalation import Escalation, Expired, escalation, expired, with_incidents
from auditgap.incidents.freezing import Frozen, erase, freeze, inspect, thaw, thaw_case
from auditgap.incidents.indicators import indicators
from auditgap.incidents.opening import Evidence, Happened, open_incident, triage_incident
from auditgap.incidents.releases import COMPONENTS, Assembled, Release, load_release, mixed
from auditgap.incidents.replaying import replay, replay_incident

__all__ = [
    "COMPONENTS",
    "Assembled",
    "Closed",
    "Dossier",
    "Escalation",
    "Evidence",
    "Expired",
    "Frozen",
    "Happened",
    "Proof",
    "Regime",
    "Release",
    "add_case",
    "clocks_for",
    "close_incident",
    "dossiers",
    "erase",
    "escalation",
    "expired",
    "find",
    "freeze",
    "indicators",
    "inspect",
    "load_release",
    "mixed",
    "open_incident",
    "prove",
    "read_case",
    "regimes",
    "replay",
    "replay_incident",
    "thaw",
    "thaw_case",
    "triage_incident",
    "with_case",
    "with_incidents",
    "write_case",
]

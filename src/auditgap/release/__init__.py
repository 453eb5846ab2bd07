"""Release integrity: what was evaluated is what ships, and its controls hold when things go wrong."""

from auditgap.release.effects import Effect, EffectLedger
from auditgap.release.events import Event, EventKind, EventLog, read_events
from auditgap.release.faults import Channel, Fault, FaultKind, FaultPlan, Injector, Match, When
from auditgap.release.observation import Observation, Observer, observe_into, read_observations

__all__ = [
    "Channel",
    "Effect",
    "EffectLedger",
    "Event",
    "EventKind",
    "EventLog",
    "Fault",
    "FaultKind",
    "FaultPlan",
    "Injector",
    "Match",
    "Observation",
    "Observer",
    "When",
    "observe_into",
    "read_events",
    "read_observations",
]

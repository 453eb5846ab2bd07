"""Alarms on streams of events whose false-alarm rate holds however often one looks."""

from auditgap.alarms.reading import read_lines, read_row
from auditgap.alarms.running import Checkpoint, WatchResult, read_checkpoint, watch_traffic
from auditgap.alarms.signals import SIGNALS, Audit, Traffic, signal_kind, values_of
from auditgap.alarms.streams import AlarmPolicy, Reference, StreamSpec, load_alarm_policy, reference_from
from auditgap.alarms.watching import StreamStatus, Watch, WatchState
from auditgap.records.alarm import Alarm

__all__ = [
    "SIGNALS",
    "Alarm",
    "AlarmPolicy",
    "Audit",
    "Checkpoint",
    "Reference",
    "StreamSpec",
    "StreamStatus",
    "Traffic",
    "Watch",
    "WatchResult",
    "WatchState",
    "load_alarm_policy",
    "read_checkpoint",
    "read_lines",
    "read_row",
    "reference_from",
    "signal_kind",
    "values_of",
    "watch_traffic",
]

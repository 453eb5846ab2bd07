"""Probes inside generation: fitted, packed, calibrated, and bound to the model that they were calibrated on."""

from auditgap.monitor.artefact import Monitor, Uncalibrated, engine_of, load, save, uncalibrated
from auditgap.monitor.fitting import fit
from auditgap.monitor.packing import Readout, Weights
from auditgap.monitor.panel import Watched
from auditgap.monitor.scoring import Scored, score
from auditgap.monitor.watching import Watch, watching

__all__ = [
    "Monitor",
    "Readout",
    "Scored",
    "Uncalibrated",
    "Watch",
    "Watched",
    "Weights",
    "engine_of",
    "fit",
    "load",
    "save",
    "score",
    "uncalibrated",
    "watching",
]

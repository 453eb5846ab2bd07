"""Instruments x organisms: what each instrument would have caught, and how often it cries out at nothing."""

from auditgap.calibration.power import Bar, Look, Score, fix_bars, flag, joint_misses, power_cells
from auditgap.calibration.running import calibrate

__all__ = ["Bar", "Look", "Score", "calibrate", "fix_bars", "flag", "joint_misses", "power_cells"]

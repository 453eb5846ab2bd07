"""Probes inside generation: fitted, packed, calibrated, and bound to the model that they were calibrated on."""

"""Instruments that read what the model says: one file each."""

"""Instruments that read or change what happens inside the model: one file each."""

"""Measuring procedures: one file each under `behavioural/` and `mechanistic/`."""

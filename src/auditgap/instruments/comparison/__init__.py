"""Instruments that need two or more checkpoints: what changed between them, and when."""

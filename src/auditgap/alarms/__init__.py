"""Alarms on streams of events whose false-alarm rate holds however often one looks."""

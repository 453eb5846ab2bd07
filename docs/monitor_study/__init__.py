"""Monitors measured on organisms whose flaw is known: one module for each organism, one for each thing done to its monitor."""

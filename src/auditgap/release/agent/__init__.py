"""The reference agent: a small payments server behind a chain of controls, to try cases and faults on."""

from auditgap.release.agent.reference import CONTROLS, SERVER, ReferenceStack

__all__ = ["CONTROLS", "SERVER", "ReferenceStack"]

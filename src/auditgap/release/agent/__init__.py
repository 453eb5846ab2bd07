"""The reference agent: a small payments server behind a chain of controls, to try cases and faults on."""

from auditgap.release.agent.reference import CONTROLS, SERVER, Policy, ReferenceStack, Tools

__all__ = ["CONTROLS", "SERVER", "Policy", "ReferenceStack", "Tools"]

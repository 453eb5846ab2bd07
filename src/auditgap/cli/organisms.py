"""`auditgap organisms`: models with planted, known flaws, and their clean twins."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from auditgap.cli.options import as_json, bars, json_flag, table, use_threads
from auditgap.cli.render import control_row
from auditgap.errors import UsageError

if TYPE_CHECKING:
    from auditgap.organisms import Recipe

__all__ = ["command"]

_out = click.option("--out", default="out/organisms", show_default=True, type=click.Path(file_okay=False), help="Cache folder.")
_all = click.option("--all", "all_", is_flag=True, help="Every kind.")
_seed = click.option("--seed", default=0, show_default=True)
_workers = click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Organisms at a time, a process each."
)
_base = click.option(
    "--base", type=click.Path(file_okay=False), help="Folder of a base model to fine-tune, instead of a small world."
)


@click.group("organisms")
def command() -> None:
    """List, build and verify organisms."""


@command.command("list")
@json_flag
def list_(as_json_: bool) -> None:
    """Every recipe and what it plants."""
    from auditgap.organisms import RECIPES

    rows = [(kind, (recipe.__doc__ or "").strip().splitlines()[0]) for kind, recipe in sorted(RECIPES.items())]
    if as_json_:
        as_json([{"kind": kind, "plants": plants} for kind, plants in rows])
    else:
        table("organisms", ("kind", "plants"), rows)


@command.command("build")
@click.argument("kinds", nargs=-1)
@_all
@_seed
@_base
@_workers
@_out
def build(kinds: tuple[str, ...], all_: bool, seed: int, base: str | None, workers: int, out: str) -> None:
    """Train the organisms of KINDS, their twins and decoys (or find them in the cache) and print the folders."""
    from auditgap.organisms import cached_all

    use_threads(1, out)
    recipes = list(_recipes(kinds, all_, seed, base).values())
    with bars() as progress:
        for organism in cached_all(recipes, Path(out), n_workers=workers, progress=progress):
            click.echo(organism.folder)


@command.command("verify")
@click.argument("kinds", nargs=-1)
@_all
@_seed
@_base
@_out
@json_flag
def verify(kinds: tuple[str, ...], all_: bool, seed: int, base: str | None, out: str, as_json_: bool) -> None:
    """Measure with the key in hand that the flaws of KINDS took and that twins and decoys are free of them; exit 3 if not."""
    from auditgap.organisms import cached
    from auditgap.organisms import verify as check

    use_threads(1, out)
    found = {}
    with bars() as progress:
        for kind, recipe in _recipes(kinds, all_, seed, base).items():
            found[kind] = check(cached(recipe, Path(out), progress=progress))
    if as_json_:
        as_json(found)
        return
    for kind, controls in found.items():
        table(f"organism {kind}, seed {seed}", ("check", "passed", "observed", "expected"), [control_row(c) for c in controls])


def _recipes(kinds: tuple[str, ...], all_: bool, seed: int, base: str | None) -> "dict[str, Recipe]":
    """What to build, by the kind asked for: grown in a small world, or fine-tuned from a base."""
    from auditgap.organisms import FINETUNED, RECIPES, find_finetuned, find_recipe

    known = sorted(RECIPES if base is None else FINETUNED)
    if bool(kinds) == all_:
        raise UsageError(f"expected kinds of organism or --all; known: {', '.join(known)}")
    chosen = list(kinds) or known
    if base is None:
        return {kind: find_recipe(kind)(seed=seed) for kind in chosen}
    return {kind: find_finetuned(kind).on(base, seed=seed) for kind in chosen}

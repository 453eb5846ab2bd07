"""`auditgap crosswalk`: do frameworks, claims, criteria and instruments hold together?"""

from pathlib import Path

import click

from auditgap.cli.options import as_json, json_flag

__all__ = ["command"]


@click.group("crosswalk")
def command() -> None:
    """Check how duties are mapped to claims, criteria and instruments."""


@command.command("check")
@click.option("--folder", type=click.Path(file_okay=False), help="Own tables: frameworks/NAME.yaml and crosswalks/NAME.yaml.")
@json_flag
def check(folder: str | None, as_json_: bool) -> None:
    """List every row that lacks something, id that leads nowhere and criterion that nothing can meet; exit 2 if there is one."""
    from auditgap.governance import check_crosswalks

    found = check_crosswalks(Path(folder) if folder else None)
    if as_json_:
        as_json({"findings": found})
    else:
        click.echo("\n".join([*found, f"{len(found)} findings"]))
    raise click.exceptions.Exit(2 if found else 0)

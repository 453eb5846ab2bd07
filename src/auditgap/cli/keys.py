"""`auditgap keys`: who signs."""

from typing import Literal

import click

from auditgap.cli.options import as_json, json_flag, store, table

__all__ = ["command"]


@click.group("keys")
def command() -> None:
    """Show the signing keys, or replace one. Private keys never leave their files (mode 0600)."""


@command.command("show")
@store
@json_flag
def show(store: str, as_json_: bool) -> None:
    """Role, fingerprint and age of every key the ledger knows."""
    from auditgap.evidence import KeyRow, Store

    with Store.open(store, create=False) as opened:
        rows = opened.keys()
    if as_json_:
        as_json([row._asdict() for row in rows])
    else:
        table("keys", KeyRow._fields, [[str(cell) for cell in row] for row in rows])


@command.command("rotate")
@click.argument("role", type=click.Choice(["evaluation", "gate"]))
@store
def rotate(role: Literal["evaluation", "gate"], store: str) -> None:
    """Make a new key for ROLE, vouched for by the old one; what the old one signed stays valid."""
    from auditgap.evidence import Store

    with Store.open(store) as opened:
        click.echo(opened.rotate(role))

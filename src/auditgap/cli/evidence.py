"""`auditgap evidence`: list, show, verify and bundle what is in the ledger."""

from pathlib import Path
from typing import TextIO

import click

from auditgap.cli.options import as_json, json_flag, store, table
from auditgap.cli.render import short

__all__ = ["command"]


@click.group("evidence")
def command() -> None:
    """Read the ledger, prove it whole, take a copy for someone else."""


@command.command("list")
@store
@json_flag
def list_(store: str, as_json_: bool) -> None:
    """Every signed statement, oldest first."""
    from auditgap.evidence import Store

    with Store.open(store, create=False) as opened:
        rows = opened.statements()
    if as_json_:
        as_json([row._asdict() for row in rows])
    else:
        columns = ("leaf", "kind", "digest", "step", "instrument", "created")
        table(
            "ledger",
            columns,
            [(str(r.leaf), r.kind, short(r.digest), r.step or "", r.instrument or "", r.created_at or "") for r in rows],
        )


@command.command("show")
@click.argument("digest")
@store
def show(digest: str, store: str) -> None:
    """The signed statement whose DIGEST (or unambiguous prefix) is given, as JSON."""
    from auditgap.evidence import Store

    with Store.open(store, create=False) as opened:
        as_json(opened.statement(digest))


@command.command("verify")
@click.argument("bundle", required=False, type=click.Path(dir_okay=False))
@click.option("--key", "trusted", help="Fingerprint of the evaluation key that must have begun the ledger.")
@click.option(
    "--checkpoint", type=click.File("r", encoding="utf-8"), help="A signed checkpoint kept elsewhere: detects a truncated ledger."
)
@store
@json_flag
def verify_(bundle: str | None, trusted: str | None, checkpoint: TextIO | None, store: str, as_json_: bool) -> None:
    """Verify the store, or a BUNDLE file; exit 4 and the record's name if anything does not hold."""
    from auditgap.evidence import verify

    known = checkpoint.read() if checkpoint else None
    verification = verify(bundle or store, trusted=trusted, known_checkpoint=known)
    if as_json_:
        as_json(verification)
    else:
        click.echo(f"{verification.n_statements} statements, root {verification.root}")
    verification.raise_if_invalid()
    if not as_json_:
        click.echo("verified: signatures, order, proofs and blobs hold")


@command.command("bundle")
@click.argument("out", type=click.Path(dir_okay=False))
@click.option("--report", type=click.Path(exists=True, dir_okay=False), help="A report to include.")
@store
def bundle_(out: str, report: str | None, store: str) -> None:
    """Write one zip that verifies offline."""
    from auditgap.evidence import Store, bundle

    with Store.open(store, create=False) as opened:
        click.echo(bundle(opened, Path(out), report=Path(report) if report else None))

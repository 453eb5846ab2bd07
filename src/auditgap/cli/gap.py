"""`auditgap gap`: how far the stored evidence falls short of what each requirement needs."""

import click

from auditgap.cli.options import as_json, json_flag, store, table
from auditgap.cli.render import assessment_row

__all__ = ["command"]


@click.command("gap")
@click.option("--framework", "frameworks", multiple=True, help="Framework id; repeatable [default: those of the claims asked].")
@click.option("--claim", "claims", multiple=True, help="Claim id; repeatable [default: every claim].")
@click.option("--subject", help="Subject digest or prefix, where the store holds several.")
@store
@json_flag
def command(frameworks: tuple[str, ...], claims: tuple[str, ...], subject: str | None, store: str, as_json_: bool) -> None:
    """Print, per requirement or claim: support, tier, structural and execution gap per axis, fragile reasons."""
    from auditgap.judge import gap, renewals

    assessments = gap(store, frameworks=frameworks, claims=claims, subject=subject)
    if as_json_:
        as_json(assessments)
    else:
        columns = ("requirement / claim", "support", "tier", "structural gap", "execution gap", "fragile")
        table("audit gap", columns, [assessment_row(a) for a in assessments])
    for note in renewals(store, subject=subject):
        click.echo(f"note: {note}", err=True)

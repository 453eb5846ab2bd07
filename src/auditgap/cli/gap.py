"""`auditgap gap`: how far the stored evidence falls short of what each requirement needs."""

import click

from auditgap.cli.options import as_json, json_flag, store, table
from auditgap.cli.render import assessment_row, next_step_rows

__all__ = ["command"]


@click.command("gap")
@click.option("--framework", "frameworks", multiple=True, help="Framework id; repeatable [default: those of the claims asked].")
@click.option("--claim", "claims", multiple=True, help="Claim id; repeatable [default: every claim].")
@click.option("--subject", help="Subject digest or prefix, where the store holds several.")
@store
@json_flag
def command(frameworks: tuple[str, ...], claims: tuple[str, ...], subject: str | None, store: str, as_json_: bool) -> None:
    """Print, per requirement or claim: support, tier, structural and execution gap per axis, fragile reasons; then what to do."""
    from auditgap.judge import gap, renewals, to_do

    assessments = gap(store, frameworks=frameworks, claims=claims, subject=subject)
    steps = [to_do(assessment) for assessment in assessments]
    if as_json_:
        dumped = [assessment.model_dump(mode="json") for assessment in assessments]
        as_json([a | {"next_steps": [s._asdict() for s in found]} for a, found in zip(dumped, steps, strict=True)])
    else:
        columns = ("requirement / claim", "support", "tier", "structural gap", "execution gap", "fragile")
        table("audit gap", columns, [assessment_row(a) for a in assessments])
        rows = next_step_rows(assessments, steps)
        for closable, title in ((True, "what the team can do"), (False, "what nobody can close today")):
            if shown := [row[1:] for row in rows if row[0] == closable]:
                table(f"\n{title}", ("step", "for"), shown)
    for note in renewals(store, subject=subject):
        click.echo(f"note: {note}", err=True)

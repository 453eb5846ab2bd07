"""`auditgap import`: another tool's evaluation log as evidence."""

import datetime as dt
from pathlib import Path

import click

from auditgap.cli.options import as_json, json_flag, store, table
from auditgap.cli.render import control_row, measurement_row, short

__all__ = ["command"]


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--subject", required=True, help="Name or digest (or its beginning) of a subject that the store holds.")
@click.option("--model", help="The log's name for the subject, where it is another.")
@click.option("--claim", "claims", multiple=True, help="Claim id on which the log bears; repeatable.")
@click.option(
    "--bar", "bars", multiple=True, metavar="NAME>=X", help="What a number is held to, e.g. 'match.accuracy>=0.9'; repeatable."
)
@click.option(
    "--samples", multiple=True, type=click.Path(path_type=Path), help="Samples file of lm-evaluation-harness; repeatable."
)
@click.option("--expires", type=click.DateTime(["%Y-%m-%d"]), help="Last day on which it counts [default: in 90 days].")
@store
@json_flag
def command(
    file: Path,
    subject: str,
    model: str | None,
    claims: tuple[str, ...],
    bars: tuple[str, ...],
    samples: tuple[Path, ...],
    expires: dt.datetime | None,
    store: str,
    as_json_: bool,
) -> None:
    """Add the log in FILE (Inspect AI, lm-evaluation-harness, garak, promptfoo) as evidence that was not registered."""
    from auditgap.exchange import Bar, import_log

    asked = [Bar.parse(bar) for bar in bars]
    day = expires.date() if expires else None
    digest, evidence, is_new = import_log(
        store, file, subject=subject, model=model, claims=claims, bars=asked, samples=samples, expires=day
    )
    result = evidence.result
    if as_json_:
        as_json({"digest": digest, "is_new": is_new, "evidence": evidence})
    else:
        click.echo(f"{result.summary}\n{'added' if is_new else 'already in the store, nothing added'}: {short(digest)}\n")
        table("measurements", ("name", "value", "95 % interval", "n", "unit"), [measurement_row(m) for m in result.measurements])
        table("controls", ("control", "passed", "observed", "expected"), [control_row(c) for c in result.controls])
    if result.verdict == "invalid":
        click.echo("the evidence is kept and does not count: see the controls that failed", err=True)
        raise click.exceptions.Exit(3)

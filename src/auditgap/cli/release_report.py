"""`auditgap release report`: what was shown of a release, as one page."""

from pathlib import Path

import click

__all__ = ["report"]

_IN = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("report")
@click.argument("records", type=_IN, nargs=-1, required=True)
@click.option("--key", "keys", type=_IN, multiple=True, help="Public key that signed RECORDS; may be repeated.")
@click.option("--max-age-days", default=30, show_default=True, type=click.IntRange(min=1), help="Older results are stale.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default="release.html",
    show_default=True,
    help="File, .html or .md.",
)
def report(records: tuple[Path, ...], keys: tuple[Path, ...], max_age_days: int, out: Path) -> None:
    """Write the report on a release from RECORDS: integrity runs, a parity record, a promotion, signed or as --json printed."""
    from auditgap.release.reporting import write_release_report

    click.echo(write_release_report(records, out, keys=keys, max_age_days=max_age_days))

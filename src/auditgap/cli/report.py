"""`auditgap report`: one self-contained page from stored evidence."""

import click

from auditgap.cli.options import store

__all__ = ["command"]


@click.command("report")
@click.option("--subject", help="Subject digest or prefix, where the store holds several.")
@click.option("--out", type=click.Path(dir_okay=False), help="File, .html or .md [default: report-NAME.html in the store].")
@store
def command(subject: str | None, out: str | None, store: str) -> None:
    """Write the report of a subject as HTML or Markdown and print its path."""
    from auditgap.judge import write_report

    click.echo(write_report(store, subject, out))

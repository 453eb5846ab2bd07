"""`auditgap export`: the newest decision and what it rests on, in another tool's format."""

from pathlib import Path

import click

from auditgap.cli.options import store as store_option

__all__ = ["command"]


@click.command("export")
@click.argument("format_name", metavar="FORMAT", required=False)
@click.option("--subject", help="Subject digest or prefix, where the store holds several.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File [default: stdout].")
@click.option("--list", "list_", is_flag=True, help="List the formats with the file names that their documents refer to.")
@store_option
def command(format_name: str | None, subject: str | None, out: Path | None, list_: bool, store: str) -> None:
    """Write FORMAT (sarif, junit, vsa, cyclonedx, oscal-..., model-card, ...) from stored evidence. `--list` shows all."""
    from auditgap.exchange.export import FORMATS, export

    if list_ or format_name is None:
        for name, found in FORMATS.items():
            click.echo(f"{name:28}{found.file:36}{found.about}")
        return
    document = export(store, format_name, subject=subject)
    if out is None:
        click.echo(document, nl=False)
    else:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_bytes(document)
        click.echo(str(out))

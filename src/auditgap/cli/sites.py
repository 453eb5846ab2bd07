"""`auditgap sites MODEL`: where the residual stream can be read and written."""

import click

from auditgap.cli.options import as_json, json_flag, table

__all__ = ["command"]


@click.command("sites")
@click.argument("model")
@click.option("--revision", help="Commit of a Hub model.")
@click.option("--dtype", default="float32", show_default=True)
@click.option("--device", default="cpu", show_default=True)
@json_flag
def command(model: str, revision: str | None, dtype: str, device: str, as_json_: bool) -> None:
    """List the sites of MODEL, each proven at load: residual writes found, sums to rounding, edits reach the logits."""
    from auditgap.models import open_model

    rows = open_model(model, revision=revision, dtype=dtype, device=device).sites.describe()
    if as_json_:
        as_json([row._asdict() for row in rows])
    else:
        table(f"sites of {model}", rows[0]._fields, [[str(cell) for cell in row] for row in rows])

"""`auditgap run INSTRUMENT MODEL`: one instrument on any model, without a store."""

import click

from auditgap.cli.options import as_json, bars, device, json_flag, settings, table, threads, use_threads
from auditgap.cli.render import control_row, measurement_row

__all__ = ["command"]


@click.command("run")
@click.argument("instrument")
@click.argument("model")
@click.option("--data", required=True, help="FILE.jsonl, FILE.csv, shipped:NAME or hub:org/name@revision/FILE.")
@click.option("--set", "pairs", multiple=True, metavar="KEY=VALUE", help="A setting of the instrument; repeatable.")
@click.option("--seed", default=0, show_default=True)
@click.option("--revision", help="Commit of a Hub model.")
@click.option("--adapter", help="Folder of a PEFT adapter.")
@click.option("--dtype", default="float32", show_default=True)
@device
@threads
@json_flag
def command(
    instrument: str,
    model: str,
    data: str,
    pairs: tuple[str, ...],
    seed: int,
    revision: str | None,
    adapter: str | None,
    dtype: str,
    device: str,
    threads: int | None,
    as_json_: bool,
) -> None:
    """Run one INSTRUMENT on MODEL (a folder or Hub id). Nothing is registered, so the result is no evidence."""
    from auditgap.auditing import run
    from auditgap.instruments import configure
    from auditgap.models import open_model

    config = settings(pairs)
    configure(instrument, config)
    use_threads(threads, model)
    opened = open_model(model, revision=revision, adapter=adapter, dtype=dtype, device=device)
    with bars() as progress:
        finding = run(instrument, opened, data=data, config=config, seed=seed, progress=progress)
    if as_json_:
        as_json(
            {"subject": finding.subject, "card": finding.instrument.card, "config": finding.instrument, "result": finding.result}
        )
        return
    click.echo(f"{instrument} on {finding.subject.name}: {finding.result.verdict}\n{finding.result.summary}\n")
    table(
        "measurements", ("name", "value", "95 % interval", "n", "unit"), [measurement_row(m) for m in finding.result.measurements]
    )
    table("controls", ("control", "passed", "observed", "expected"), [control_row(c) for c in finding.result.controls])

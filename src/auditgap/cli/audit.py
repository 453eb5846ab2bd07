"""`auditgap audit MODEL`: from a model and a plan to signed evidence, gaps, a decision and a report."""

import click

from auditgap.cli.options import as_json, bars, device, json_flag, store, threads, use_threads
from auditgap.cli.render import print_outcome

__all__ = ["command"]


@click.command("audit")
@click.argument("model")
@click.option("--plan", required=True, type=click.Path(dir_okay=False), help="Plan file (YAML).")
@click.option("--revision", help="Commit of a Hub model.")
@click.option("--adapter", help="Folder of a PEFT adapter.")
@click.option(
    "--report", "report_path", type=click.Path(dir_okay=False), help="HTML file [default: report-NAME.html in the store]."
)
@store
@device
@threads
@json_flag
def command(
    model: str,
    plan: str,
    revision: str | None,
    adapter: str | None,
    report_path: str | None,
    store: str,
    device: str,
    threads: int | None,
    as_json_: bool,
) -> None:
    """Audit MODEL (a folder or Hub id) by a plan. After an interruption the same command resumes."""
    from auditgap.auditing import audit
    from auditgap.judge import write_report

    use_threads(threads, model)
    with bars() as progress:
        outcome = audit(model, plan, store, revision=revision, adapter=adapter, device=device, progress=progress.step)
    path = write_report(store, outcome.subject.digest(), report_path)
    if as_json_:
        as_json(outcome.document() | {"report": str(path)})
    else:
        print_outcome(outcome)
        click.echo(f"report: {path}")
    raise click.exceptions.Exit(outcome.exit_code)

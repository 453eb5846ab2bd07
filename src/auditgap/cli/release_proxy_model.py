"""`auditgap release proxy-model`: stand in front of a model endpoint, write down what it is asked, inject faults."""

from pathlib import Path

import click

from auditgap.cli.release_listening import FILE, listen, plan, until_stopped

__all__ = ["proxy_model"]


@click.command("proxy-model")
@click.option("--upstream", required=True, help="The endpoint, without the path that clients send: https://api.openai.com")
@plan
@click.option("--observe", type=FILE, help="File for what the model is asked, as sent (JSONL, appended).")
@click.option("--events", type=FILE, help="File for requests, answers and faults that fired (JSONL, appended).")
@click.option("--name", default="model", show_default=True, help="Name of the endpoint in events, observations and matches.")
@listen
@click.option("--token", envvar="AUDITGAP_PROXY_TOKEN", help="The proxy's own token; best given as AUDITGAP_PROXY_TOKEN.")
def proxy_model(
    upstream: str,
    plan: Path | None,
    observe: Path | None,
    events: Path | None,
    name: str,
    address: tuple[str, int],
    token: str | None,
) -> None:
    """Proxy a model endpoint (OpenAI and Anthropic formats) until interrupted; then name the faults that never acted."""
    from auditgap.release.injection.model_serving import proxying

    host, port = address
    with proxying(upstream, plan=plan, events=events, observe=observe, name=name, host=host, port=port, token=token) as (
        url,
        injector,
    ):
        until_stopped(url)
    for fault in injector.silent():
        click.echo(f"fault '{fault}' never acted", err=True)

"""`auditgap release proxy-model`: stand in front of a model endpoint, write down what it is asked, inject faults."""

import signal
from contextlib import suppress
from pathlib import Path

import click

__all__ = ["proxy_model"]

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("proxy-model")
@click.option("--upstream", required=True, help="The endpoint, without the path that clients send: https://api.openai.com")
@click.option("--plan", type=_FILE, help="Fault plan (YAML or JSON); without one nothing is changed.")
@click.option("--observe", type=_FILE, help="File for what the model is asked, as sent (JSONL, appended).")
@click.option("--events", type=_FILE, help="File for requests, answers and faults that fired (JSONL, appended).")
@click.option("--name", default="model", show_default=True, help="Name of the endpoint in events, observations and matches.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, show_default=True, help="0 takes a free one.")
@click.option("--token", envvar="AUDITGAP_PROXY_TOKEN", help="The proxy's own token; best given as AUDITGAP_PROXY_TOKEN.")
def proxy_model(
    upstream: str,
    plan: Path | None,
    observe: Path | None,
    events: Path | None,
    name: str,
    host: str,
    port: int,
    token: str | None,
) -> None:
    """Proxy a model endpoint (OpenAI and Anthropic formats) until interrupted; then name the faults that never acted."""
    from auditgap.release.injection.model_serving import proxying

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with (
        proxying(upstream, plan=plan, events=events, observe=observe, name=name, host=host, port=port, token=token) as (
            url,
            injector,
        ),
        suppress(KeyboardInterrupt),
    ):
        click.echo(url)
        signal.pause()
    for fault in injector.silent():
        click.echo(f"fault '{fault}' never acted", err=True)

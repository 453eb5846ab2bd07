"""`auditgap release proxy-mcp`: stand in front of an MCP server, write down what goes past, inject faults."""

import signal
from contextlib import suppress
from pathlib import Path

import click

__all__ = ["proxy_mcp"]

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("proxy-mcp")
@click.option("--plan", type=_FILE, help="Fault plan (YAML or JSON); without one nothing is changed.")
@click.option("--observe", type=_FILE, help="File for the server's identity and the tools as the agent got them (JSONL).")
@click.option("--events", type=_FILE, help="File for calls, results and faults that fired (JSONL, appended).")
@click.option("--name", help="Name of the server in matches, events and observations [default: its own].")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(0.1),
    default=300.0,
    show_default=True,
    help="Seconds that an answer may take.",
)
@click.option("--upstream", help="HTTP: the server's endpoint, such as http://127.0.0.1:8000/mcp.")
@click.option("--listen", default="127.0.0.1:0", show_default=True, help="HTTP: address and port; port 0 takes a free one.")
@click.option("--token", envvar="AUDITGAP_PROXY_TOKEN", help="HTTP: the proxy's own token; best given as AUDITGAP_PROXY_TOKEN.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def proxy_mcp(
    plan: Path | None,
    observe: Path | None,
    events: Path | None,
    name: str | None,
    timeout_s: float,
    upstream: str | None,
    listen: str,
    token: str | None,
    command: tuple[str, ...],
) -> None:
    """Proxy an MCP server until the client leaves; then name the faults that never acted.

    On stdio, put the command that starts the server after `--`; over streamable HTTP, give its endpoint with --upstream.
    """
    if bool(command) == bool(upstream):
        raise click.UsageError("expected either `-- COMMAND ...` for a stdio server or --upstream URL for an HTTP one")
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal():
        raise click.UsageError(f"--listen: expected ADDRESS:PORT, such as 127.0.0.1:0, got '{listen}'")
    from auditgap.release.injection.exchange import Limits
    from auditgap.release.injection.mcp_serving import exchanging, proxy_stdio

    limits = Limits(answer_timeout_s=timeout_s)
    with exchanging(plan=plan, observe=observe, events=events, name=name) as exchange:
        try:
            if command:
                proxy_stdio(command, exchange, limits=limits)
            elif upstream:
                from auditgap.release.injection.mcp_http import proxy_http

                signal.signal(signal.SIGTERM, signal.default_int_handler)
                with proxy_http(upstream, exchange, host=host, port=int(port), token=token, limits=limits) as url:
                    click.echo(url)
                    with suppress(KeyboardInterrupt):
                        signal.pause()
        finally:
            for fault in exchange.silent():
                click.echo(f"fault '{fault}' never acted", err=True)

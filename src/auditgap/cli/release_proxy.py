"""`auditgap release proxy-mcp`: stand in front of an MCP server, write down what goes past, inject faults."""

from pathlib import Path

import click

from auditgap.cli.release_listening import FILE, listen, plan, until_stopped

__all__ = ["proxy_mcp"]


@click.command("proxy-mcp")
@plan
@click.option("--observe", type=FILE, help="File for the server's identity and the tools as the agent got them (JSONL).")
@click.option("--events", type=FILE, help="File for calls, results and faults that fired (JSONL, appended).")
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
@listen
@click.option("--token", envvar="AUDITGAP_PROXY_TOKEN", help="HTTP: the proxy's own token; best given as AUDITGAP_PROXY_TOKEN.")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
def proxy_mcp(
    plan: Path | None,
    observe: Path | None,
    events: Path | None,
    name: str | None,
    timeout_s: float,
    upstream: str | None,
    address: tuple[str, int],
    token: str | None,
    command: tuple[str, ...],
) -> None:
    """Proxy an MCP server until the client leaves; then name the faults that never acted.

    On stdio, put the command that starts the server after `--`; over streamable HTTP, give its endpoint with --upstream.
    """
    if bool(command) == bool(upstream):
        raise click.UsageError("expected either `-- COMMAND ...` for a stdio server or --upstream URL for an HTTP one")
    from auditgap.release.injection.exchange import Limits
    from auditgap.release.injection.mcp_serving import exchanging, proxy_stdio

    limits = Limits(answer_timeout_s=timeout_s)
    with exchanging(plan=plan, observe=observe, events=events, name=name) as exchange:
        try:
            if command:
                proxy_stdio(command, exchange, limits=limits)
            elif upstream:
                from auditgap.release.injection.mcp_http import proxy_http

                host, port = address
                with proxy_http(upstream, exchange, host=host, port=port, token=token, limits=limits) as url:
                    until_stopped(url)
        finally:
            for fault in exchange.silent():
                click.echo(f"fault '{fault}' never acted", err=True)

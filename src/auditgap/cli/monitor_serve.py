"""`auditgap monitor serve`, `token` and `traffic`: a model behind OpenAI's interface, who may ask it, and what was asked."""

import json
import logging
import signal
import threading
from pathlib import Path

import click

from auditgap.cli.options import Address, device, threads, use_threads

__all__ = ["serve", "token", "traffic"]

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command("serve")
@click.argument("model")
@click.option(
    "--monitor", "monitors", multiple=True, type=click.Path(file_okay=False), help="Folder of a fitted monitor; repeatable."
)
@click.option("--tokens", type=_FILE, help="Who may ask: lines of 'auditgap monitor token NAME'.")
@click.option("--insecure-no-auth", is_flag=True, help="Nobody is asked for a token; on loopback addresses only.")
@click.option("--listen", type=Address(), default="127.0.0.1:8000", show_default=True, help="Port 0 takes a free one.")
@click.option("--policy", type=_FILE, help="What a flag does (YAML) [default: log].")
@click.option("--ledger", type=_FILE, default=Path("requests.jsonl"), show_default=True, help="Two lines for every request.")
@click.option("--keep-content", is_flag=True, help="Write prompts and replies into the ledger, not only digests.")
@click.option("--name", help="Name of the model for clients [default: its own].")
@click.option("--release", help="Fingerprint of the release [default: of model, engine, monitors and policy].")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Requests that run together.")
@click.option(
    "--max-waiting", type=click.IntRange(min=0), default=64, show_default=True, help="Requests that wait; more get 429."
)
@click.option("--request-timeout", type=click.FloatRange(min=0, min_open=True), default=300.0, show_default=True, help="Seconds.")
@click.option("--send-timeout", type=click.FloatRange(min=0, min_open=True), default=15.0, show_default=True, help="Seconds.")
@click.option("--drain", type=click.FloatRange(min=0), default=10.0, show_default=True, help="Seconds to finish after SIGTERM.")
@click.option("--revision", help="Commit of a Hub model.")
@click.option("--dtype", default="float32", show_default=True)
@device
@threads
def serve(
    model: str,
    monitors: tuple[str, ...],
    tokens: Path | None,
    insecure_no_auth: bool,
    listen: tuple[str, int],
    policy: Path | None,
    ledger: Path,
    keep_content: bool,
    name: str | None,
    release: str | None,
    batch_size: int,
    max_waiting: int,
    request_timeout: float,
    send_timeout: float,
    drain: float,
    revision: str | None,
    dtype: str,
    device: str,
    threads: int | None,
) -> None:
    """Serve MODEL behind OpenAI's interface with its monitors attached, until interrupted."""
    from auditgap.governance import parse
    from auditgap.models import open_model
    from auditgap.monitor import load
    from auditgap.records.monitor import MonitorPolicy
    from auditgap.serving.running import fingerprint, serving, who_may_ask
    from auditgap.serving.service import Settings

    host, port = listen
    tenants, everybody = who_may_ask(tokens, host=host, insecure_no_auth=insecure_no_auth)
    rule, held = parse(policy, MonitorPolicy) if policy else MonitorPolicy(), [load(folder) for folder in monitors]
    use_threads(threads, model)
    opened = open_model(model, revision=revision, dtype=dtype, device=device)
    document = {
        "name": name or opened.subject.name,
        "release": release or fingerprint(opened, held, rule),
        "max_waiting": max_waiting,
        "request_timeout_s": request_timeout,
        "send_timeout_s": send_timeout,
        "keep_content": keep_content,
    }
    settings = Settings.parse(document, where="options")
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    with serving(
        opened,
        held,
        policy=rule,
        settings=settings,
        ledger=ledger,
        tenants=tenants,
        everybody=everybody,
        batch_size=batch_size,
        drain_s=drain,
        host=host,
        port=port,
    ) as (url, service):
        click.echo(f"{url} serves {settings.name}, release {settings.release}")
        if service.ledger.n_recovered:
            click.echo(f"{ledger}: {service.ledger.n_recovered} requests had begun and not ended; marked as lost", err=True)
        stopped.wait()


@click.command("token")
@click.argument("name")
def token(name: str) -> None:
    """Make a token for tenant NAME: the line for the file on stdout, the token itself on stderr, once."""
    from auditgap.serving.tenants import new_tenant

    secret, line = new_tenant(name)
    click.echo(f"token of {name}, which is kept nowhere: {secret}", err=True)
    click.echo(line)


@click.command("traffic")
@click.argument("ledger", type=_FILE)
@click.option("--tenant", help="Only this tenant's requests.")
def traffic(ledger: Path, tenant: str | None) -> None:
    """Print the requests of a ledger as JSON lines that 'auditgap monitor watch' reads."""
    from auditgap.serving.ledger import traffic

    for row in traffic(ledger, tenant=tenant):
        click.echo(json.dumps(row, ensure_ascii=False))

"""What the proxies share: their files, the address that they listen on, and serving until somebody stops them."""

import signal
from contextlib import suppress
from pathlib import Path

import click

from auditgap.cli.options import Address

__all__ = ["FILE", "listen", "plan", "until_stopped"]

FILE = click.Path(dir_okay=False, path_type=Path)

plan = click.option("--plan", type=FILE, help="Fault plan (YAML or JSON); without one nothing is changed.")
listen = click.option(
    "--listen",
    "address",
    type=Address(),
    default="127.0.0.1:0",
    show_default=True,
    help="Where to serve HTTP; port 0 takes a free one.",
)


def until_stopped(url: str) -> None:
    """Print the address, and wait for an interrupt or SIGTERM."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with suppress(KeyboardInterrupt):
        click.echo(url)
        signal.pause()

"""Options and printing that several commands share."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import click
from pydantic import BaseModel, JsonValue
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

from auditgap.errors import UsageError
from auditgap.progress import Progress

__all__ = ["Address", "as_json", "bars", "device", "json_flag", "settings", "store", "table", "threads", "use_threads"]

SMALL_BYTES = 100_000_000

store = click.option("--store", default=".auditgap", show_default=True, help="Evidence store: a folder or a database URL.")
json_flag = click.option("--json", "as_json_", is_flag=True, help="Print JSON on stdout.")
threads = click.option("--threads", type=click.IntRange(min=1), help="CPU threads [default: 1 for weights under 100 MB].")
device = click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")


class Address(click.ParamType):
    """`HOST:PORT`, with an IPv6 host in brackets, as (host, port)."""

    name = "HOST:PORT"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        host, _, port = value.rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            self.fail(f"expected HOST:PORT, such as 127.0.0.1:0, got '{value}'", param, ctx)
        return host.strip("[]"), int(port)


def as_json(value: BaseModel | Sequence[object] | Mapping[str, object]) -> None:
    """Print records (or plain JSON) on stdout, indented."""

    def plain(item: object) -> object:
        if isinstance(item, BaseModel):
            return item.model_dump(mode="json")
        if isinstance(item, dict):
            return {key: plain(inner) for key, inner in item.items()}
        return [plain(inner) for inner in item] if isinstance(item, list | tuple) else item

    click.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on stdout; plain text when stdout is not a terminal."""
    drawn = Table(*columns, title=title, title_justify="left", show_edge=False, pad_edge=False)
    for row in rows:
        drawn.add_row(*row)
    console = Console(markup=False, highlight=False)
    if not console.is_terminal:
        console.width = 120
    console.print(drawn)


def settings(pairs: Sequence[str]) -> dict[str, JsonValue]:
    """`key=value` pairs as a configuration; a value is JSON where it parses as JSON, otherwise text.

    Raises:
        UsageError: a pair has no `=`.
    """
    config: dict[str, JsonValue] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"expected --set key=value, got '{pair}'")
        try:
            config[key] = json.loads(value)
        except json.JSONDecodeError:
            config[key] = value
    return config


def use_threads(asked: int | None, model: str | Path) -> None:
    """Set the CPU threads of this process. Several threads on a model of a few million parameters wait more than they work."""
    import torch

    small = Path(model).is_dir() and sum(file.stat().st_size for file in Path(model).glob("*.safetensors")) < SMALL_BYTES
    if asked is not None or small:
        torch.set_num_threads(asked or 1)


@contextmanager
def bars() -> Iterator["_Bars"]:
    """Progress bars on stderr; silent when stderr is not a terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"), TimeElapsedColumn())
    with Bar(*columns, console=console, disable=not sys.stderr.isatty(), transient=True) as bar:
        yield _Bars(bar)


class _Bars:
    """One bar per label; `bars.step("probe")` is the progress callback of one step."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._tasks: dict[str, object] = {}

    def __call__(self, label: str, done: int, total: int) -> None:
        if label not in self._tasks:
            self._tasks[label] = self._bar.add_task(label, total=total)
        self._bar.update(self._tasks[label], completed=done, total=total)  # type: ignore[arg-type]

    def step(self, name: str) -> Progress:
        """Progress of one plan step; labels are prefixed by its id."""
        return lambda label, done, total: self(f"{name}: {label}", done, total)

"""Regenerate what is derived: docs/commands.md, docs/schema/*.json. `make docs` writes; the tests compare."""

import json
import sys
from pathlib import Path

import click

from auditgap import records
from auditgap.cli import cli
from auditgap.plan import Plan

HERE = Path(__file__).parent


def commands(command: click.Command = cli, path: str = "auditgap", parent: click.Context | None = None) -> str:
    """The help text of every command, as one Markdown page."""
    ctx = click.Context(command, info_name=path, parent=None, max_content_width=100, terminal_width=100)
    level = "#" * (1 + path.count(" "))
    text = f"{level} {path}\n\n```text\n{command.get_help(ctx)}\n```\n"
    if isinstance(command, click.Group):
        for name in sorted(command.list_commands(ctx)):
            child = command.get_command(ctx, name)
            if child is not None:
                text += "\n" + commands(child, f"{path} {name}")
    return text


def schemas() -> dict[str, str]:
    """JSON Schema of each record that is signed or that people write, by file name."""
    shown = [records.Registration, records.Evidence, records.Assessment, records.Decision, records.Subject, records.Access]
    shown += [records.Claim, records.Requirement, Plan]
    return {f"{cls.__name__.lower()}.json": json.dumps(cls.model_json_schema(), indent=2) + "\n" for cls in shown}


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    return {HERE / "commands.md": commands()} | {HERE / "schema" / name: text for name, text in schemas().items()}


if __name__ == "__main__":
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(HERE.parent), file=sys.stderr)

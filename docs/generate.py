"""Regenerate commands/*.md, instruments/README.md, schema/*.json and power.md: `make docs` writes, the tests compare."""

import json
import sys
from pathlib import Path

import click

from auditgap import records
from auditgap.cli import cli
from auditgap.governance import Crosswalk, Rulebook, failure_modes, shipped_calibration, shipped_matrix, with_matrix
from auditgap.governance.coverage import coverage
from auditgap.instruments import registered
from auditgap.plan import Plan
from auditgap.report import feasibility_card, power_svg, read_bench, render_card, render_power, standalone

HERE = Path(__file__).parent
FIGURE = "![Power of the best detector from the inside and from behaviour, by organism and difficulty](figures/power.svg)\n\n"
TABLES = "## From the inside"
"""The figure goes before this."""


def commands() -> dict[str, str]:
    """One page per command: its help, that of its subcommands, and where it is used."""
    ctx = click.Context(cli, info_name="auditgap", **cli.context_settings)
    pages = {}
    for name in cli.list_commands(ctx):
        command = cli.get_command(ctx, name)
        if command is None:
            raise LookupError(f"the command '{name}' is listed and not there")
        pages[f"{name}.md"] = _page(command, ctx, f"auditgap {name}", 1) + "\nUsed in the [tutorial](../tutorial.md).\n"
    return pages


def _page(command: click.Command, root: click.Context, path: str, level: int) -> str:
    # The names of the help option come from the root: click keeps them on the command from its first use on.
    names = root.help_option_names
    ctx = click.Context(command, info_name=path, max_content_width=100, terminal_width=100, help_option_names=names)
    text = f"{'#' * level} {path}\n\n```text\n{command.get_help(ctx)}\n```\n"
    if isinstance(command, click.Group):
        for name in sorted(command.list_commands(ctx)):
            child = command.get_command(ctx, name)
            text += "\n" + _page(child, root, f"{path} {name}", level + 1) if child else ""
    return text


def instruments() -> str:
    """The index of instruments, from their cards."""
    lines = ["# Instruments", "", "| instrument | family | access | data | `supported` means |", "|---|---|---|---|---|"]
    for name, cls in registered().items():
        card = cls.card
        lines.append(f"| [{name}]({name}.md) | {card.family} | {card.needs} | {card.data} | {card.hypothesis} |")
    lines += [
        "",
        "`auditgap instruments NAME` prints settings, controls and blind spots. [How to add one](../../CONTRIBUTING.md).",
    ]
    return "\n".join(lines) + "\n"


def schemas() -> dict[str, str]:
    """JSON Schema of each record that is signed or that people write, by file name."""
    shown = [records.Registration, records.Evidence, records.Assessment, records.Decision, records.Subject, records.Access]
    shown += [records.Claim, records.Requirement, records.Calibration, Plan, Rulebook, Crosswalk]
    return {f"{cls.__name__.lower()}.json": json.dumps(cls.model_json_schema(), indent=2) + "\n" for cls in shown}


def frameworks() -> str:
    """The page on frameworks, with today's matrix."""
    return with_matrix((HERE / "frameworks.md").read_text(encoding="utf-8"), shipped_matrix())


def power() -> str:
    """The page on measured power, from the calibration that auditgap ships and the results of the benchmark."""
    calibration, bench = shipped_calibration(), read_bench(HERE.parent / "bench" / "results.json")
    card = render_card(feasibility_card(calibration, bench), bench)
    if calibration is None:
        return f"# Measured power\n\nNo calibration is shipped: nothing has been measured.\n\n{card}"
    page = render_power(calibration, coverage(failure_modes().values(), registered(), calibration))
    return f"{page.replace(TABLES, f'{FIGURE}{TABLES}', 1)}\n{card}"


def files() -> dict[Path, str]:
    """Every generated file with its text."""
    pages = {HERE / "commands" / name: text for name, text in commands().items()}
    pages |= {HERE / "schema" / name: text for name, text in schemas().items()}
    generated = {"instruments/README.md": instruments(), "frameworks.md": frameworks(), "power.md": power()}
    return pages | {HERE / name: text for name, text in generated.items()}


def power_figure() -> str:
    """The figure of that page; the tests do not compare it, because another processor may round a coordinate differently."""
    calibration = shipped_calibration()
    if calibration is None:
        raise LookupError("no calibration is shipped: there is nothing to draw")
    return standalone(power_svg(calibration)) + "\n"


if __name__ == "__main__":
    (HERE / "figures" / "power.svg").write_text(power_figure(), encoding="utf-8")
    for path, text in files().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(HERE.parent), file=sys.stderr)

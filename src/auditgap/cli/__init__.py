"""The command line: parse, one library call, render. Results on stdout, progress on stderr.

Exit codes: 0 pass, 1 gate blocked, 2 usage, plan or policy error, 3 could not measure or inconclusive, 4 evidence invalid.
"""

import importlib
import sys

import click

from auditgap.errors import AuditgapError, nearest

__all__ = ["main"]

_COMMANDS = {
    "audit": "auditgap.cli.audit",
    "calibrate": "auditgap.cli.calibrate",
    "case": "auditgap.cli.case",
    "compute": "auditgap.cli.compute",
    "coverage": "auditgap.cli.coverage",
    "crosswalk": "auditgap.cli.crosswalk",
    "demo": "auditgap.cli.demo",
    "evidence": "auditgap.cli.evidence",
    "export": "auditgap.cli.export",
    "frameworks": "auditgap.cli.frameworks",
    "gap": "auditgap.cli.gap",
    "gate": "auditgap.cli.gate",
    "import": "auditgap.cli.import_",
    "incident": "auditgap.cli.incident",
    "instruments": "auditgap.cli.instruments",
    "keys": "auditgap.cli.keys",
    "monitor": "auditgap.cli.monitor",
    "organisms": "auditgap.cli.organisms",
    "plan": "auditgap.cli.plan",
    "release": "auditgap.cli.release",
    "report": "auditgap.cli.report",
    "run": "auditgap.cli.run",
    "sites": "auditgap.cli.sites",
}


class _Lazy(click.Group):
    """Imports a command's module when it is called: `auditgap gap` never waits for torch."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        return importlib.import_module(_COMMANDS[cmd_name]).command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            raise click.UsageError(f"no command '{args[0]}'{nearest(args[0], _COMMANDS)}", ctx)
        return super().resolve_command(ctx, args)


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="auditgap")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """From a model to signed evidence, the gap per requirement and a release decision."""


def main(args: list[str] | None = None) -> None:
    """Entry point; turns every expected error into one line on stderr and its exit code."""
    args = sys.argv[1:] if args is None else args
    try:
        sys.exit(cli.main(args=args, prog_name="auditgap", standalone_mode=False))  # what a command raises as Exit is returned
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except click.Abort:
        print("interrupted; what was finished is kept: the same command resumes", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except AuditgapError as error:
        if "--debug" in args:
            raise
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)

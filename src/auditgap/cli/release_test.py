"""`auditgap release test` and `auditgap release faults`: integrity cases, and what can be made to go wrong."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from auditgap.cli.options import as_json, bars, json_flag, table
from auditgap.records.integrity import CaseResult, IntegrityRun, Mode

if TYPE_CHECKING:
    from auditgap.release.cases import Agent, System

__all__ = ["faults", "test"]


@click.command("test")
@click.option("--suite", "folder", type=click.Path(file_okay=False), help="Folder of case files [default: the shipped cases].")
@click.option("--case", "case_id", help="Only this case: its id, or `RIC-014`.")
@click.option("--without", multiple=True, help="Leave this control out of the stack (repeatable).")
@click.option("--in-turn", is_flag=True, help="Then leave out each control in turn, and show which cases notice.")
@click.option("--mode", type=click.Choice(["scripted", "live"]), help="Whose calls [default: live with an agent, else scripted].")
@click.option(
    "--release",
    metavar="MODULE:NAME",
    help="Test this Release, not the reference agent: runs the code of that module, installed or in the working directory.",
)
@click.option(
    "--agent",
    metavar="MODULE:FUNCTION",
    help="Called with a prompt and a session, returns its reply. Runs the code of that module.",
)
@click.option("--manifest", type=click.Path(dir_okay=False), help="Manifest of the release that is tested; the run names it.")
@click.option("--seed", default=0, show_default=True, help="Of the fault plans.")
@json_flag
def test(
    folder: str | None,
    case_id: str | None,
    without: tuple[str, ...],
    in_turn: bool,
    mode: Mode | None,
    release: str | None,
    agent: str | None,
    manifest: str | None,
    seed: int,
    as_json_: bool,
) -> None:
    """Run integrity cases against the reference agent's tool stack, or a release's.

    Exit 0: all held, or degraded as declared; 1: something broke; 3: something could not be shown or was not run.
    """
    from auditgap.release.cases.suite import load_suite, register, run_suite

    system, caller, fingerprint = _tested(release, agent, manifest)
    suite = load_suite(Path(folder) if folder else None, system=system)
    suite = suite.only(case_id) if case_id else suite
    with bars() as progress:
        run = run_suite(
            suite,
            register(suite, manifest=fingerprint),
            system=system,
            agent=caller,
            modes=(mode or ("live" if caller else "scripted"),),
            without=without,
            in_turn=in_turn,
            seed=seed,
            progress=progress,
        )
    if as_json_:
        as_json(run)
    else:
        _show(run)
    raise click.exceptions.Exit(_exit_code(run))


@click.command("faults")
@json_flag
def faults(as_json_: bool) -> None:
    """List the fault kinds: where each may act, and its settings with their defaults."""
    from auditgap.release.injection.kinds import KINDS

    if as_json_:
        as_json([{"kind": kind, **card.model_dump(mode="json")} for kind, card in KINDS.items()])
        return
    rows = [
        (
            kind,
            ", ".join(card.channels),
            ", ".join(f"{name}={param.default!r:.40}" for name, param in card.params.items()),
            card.about,
        )
        for kind, card in KINDS.items()
    ]
    table(f"{len(rows)} fault kinds", ("kind", "channels", "settings", "what happens"), rows)


def _tested(release: str | None, agent: str | None, manifest: str | None) -> "tuple[System, Agent | None, str | None]":
    """The stack, who makes the calls on it, and the fingerprint of the release where it is known."""
    from auditgap.release.capture import read_manifest
    from auditgap.release.cases.session import REFERENCE, load_agent

    if release is None:
        fingerprint = read_manifest(manifest).fingerprint() if manifest else None
        return REFERENCE, load_agent(agent) if agent else None, fingerprint
    if agent or manifest:
        raise click.UsageError("a release brings its own agent and manifest; leave out --agent and --manifest")
    from auditgap.incidents import load_release

    loaded = load_release(release)
    running = loaded.opened()
    return running.system, running.agent, loaded.fingerprint


def _show(run: IntegrityRun) -> None:
    """The run as a person reads it: each case, then each control left out."""
    from auditgap.governance.integrity import control_table

    columns = ("case", "control", "mode", "verdict", "without it", "n", "why")
    table(f"integrity cases against {run.system}", columns, [_row(result) for result in run.results])
    if run.removed:
        rows = [
            (
                row.control,
                f"{len(row.guards) - len(row.missed)} of {len(row.guards)}",
                str(len(row.broken)),
                ", ".join(row.missed) or "none",
            )
            for row in control_table(run)
        ]
        table("each control left out in turn", ("control", "its cases that break", "all cases that break", "unnoticed by"), rows)
    click.echo(f"{sum(result.passed for result in run.results)} of {len(run.results)} passed; suite {run.suite}")


def _row(result: CaseResult) -> tuple[str, ...]:
    return result.case, result.control, result.mode, result.verdict, result.sabotage or "-", str(result.n), result.reason


def _exit_code(run: IntegrityRun) -> int:
    """1 for what broke or was served less than declared, or a control that no case misses; 3 for what could not be shown."""
    from auditgap.governance.integrity import control_table

    failed = {result.verdict for result in run.results if not result.passed}
    if {"BROKEN", "DEGRADED"} & failed or not all(row.detected for row in control_table(run)):
        return 1
    return 3 if failed else 0

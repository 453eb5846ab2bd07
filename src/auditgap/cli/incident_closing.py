"""`auditgap incident replay` and `auditgap incident close`."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import click

from auditgap.cli.incident_options import FILE, NEW_FILE, TIME, case, document, suite, utc
from auditgap.cli.incident_options import frozen as frozen_folder
from auditgap.cli.options import as_json, json_flag, store, table

if TYPE_CHECKING:
    from auditgap.incidents import Dossier

__all__ = ["close", "replay"]

_affected = click.option(
    "--affected",
    required=True,
    metavar="MODULE:NAME",
    help="The affected Release: runs the code of that module, installed or in the working directory.",
)
_corpus = click.Path(file_okay=False, path_type=Path)


@click.command("replay")
@click.argument("incident", metavar="ID")
@store
@_affected
@click.option("--reference", required=True, metavar="MODULE:NAME", help="A release that stands for how it should be.")
@case
@suite
@click.option("--full", is_flag=True, help="Every mixture of both releases, not one part at a time.")
@click.option("--repeats", type=click.IntRange(min=1), default=20, show_default=True, help="Runs per mixture.")
@click.option("--seed", default=0, show_default=True, help="Of the fault plans.")
@frozen_folder
@json_flag
def replay(
    incident: str,
    store: str,
    affected: str,
    reference: str,
    case_id: str | None,
    folder: Path | None,
    full: bool,
    repeats: int,
    seed: int,
    frozen: Path | None,
    as_json_: bool,
) -> None:
    """Replay ID with parts of the affected release exchanged: exit 0 if one part explains it, 3 if none does alone."""
    from auditgap.evidence import Store
    from auditgap.incidents import load_release, read_case, replay_incident

    releases = (load_release(affected), load_release(reference))
    chosen = read_case(case_id, folder) if case_id else None
    with Store.open(store, create=False) as opened:
        dossier = replay_incident(
            opened, incident, *releases, case=chosen, frozen=frozen, full=full, n_repeats=repeats, seed=seed
        )
    as_json(document(dossier)) if as_json_ else _print_replay(dossier)
    attributed = dossier.replay is not None and dossier.replay.record.attributed != "not-attributed"
    raise click.exceptions.Exit(0 if attributed else 3)


@click.command("close")
@click.argument("incident", metavar="ID")
@store
@_affected
@click.option("--fix", required=True, metavar="MODULE:NAME", help="The release that mends it.")
@case
@suite
@click.option("--policy", type=FILE, required=True, help="Promotion policy as it is now.")
@click.option("--corpus", type=_corpus, required=True, help="Folder of the policy's case set; the case is added to it.")
@click.option("--out", type=NEW_FILE, required=True, help="New file for the next version of the policy.")
@click.option("--requirement", help="Integrity requirement that takes the case, where several could.")
@click.option("--contained", type=TIME, help="When it was contained, UTC.")
@click.option("--seed", default=0, show_default=True, help="Of the fault plans.")
@json_flag
def close(
    incident: str,
    store: str,
    affected: str,
    fix: str,
    case_id: str | None,
    folder: Path | None,
    policy: Path,
    corpus: Path,
    out: Path,
    requirement: str | None,
    contained: dt.datetime | None,
    seed: int,
    as_json_: bool,
) -> None:
    """Close ID with a case that is BROKEN on the affected release and HELD on the fix: exit 1 if it cannot be closed yet."""
    from auditgap.evidence import Store
    from auditgap.incidents import close_incident, load_release, read_case
    from auditgap.release.promotion import load_promotion_policy

    chosen, stimuli = read_case(case_id, folder) if case_id else (None, ())
    with Store.open(store, create=False) as opened:
        closed = close_incident(
            opened,
            incident,
            chosen,
            stimuli,
            affected=load_release(affected),
            fix=load_release(fix),
            policy=load_promotion_policy(policy),
            corpus=corpus,
            out=out,
            requirement=requirement,
            contained_at=utc(contained),
            seed=seed,
        )
    if as_json_:
        as_json(document(closed.dossier) | {"refused": list(closed.refused)})
    elif closed.policy is None:
        click.echo("\n".join(f"cannot close yet: {why}" for why in closed.refused))
    else:
        raised = f"policy '{closed.policy.name}' version {closed.policy.version}"
        click.echo(f"closed {closed.dossier.incident.id}: {raised} {closed.policy.digest()} in {out}")
    raise click.exceptions.Exit(1 if closed.refused else 0)


def _print_replay(dossier: "Dossier") -> None:
    from auditgap.cli.render import measurement_row

    assert dossier.replay is not None, "a replay was just signed"
    found = dossier.replay.record
    rows = []
    for effect in found.effects:
        _, value, interval, n, _ = measurement_row(effect.effect)
        rows.append((" x ".join(effect.components), effect.kind, value, interval, n, "yes" if effect.shown else "no"))
    columns = ("swapped", "what", "difference", "interval", "n", "shown")
    table(f"{found.case}, {found.n_repeats} runs per mixture", columns, rows)
    click.echo(f"{dossier.incident.id}: {found.attributed}: {found.why}")

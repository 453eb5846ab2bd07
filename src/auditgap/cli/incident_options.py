"""What the incident commands share: options, and a dossier as JSON."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from auditgap.incidents import Dossier

__all__ = ["FILE", "NEW_FILE", "TIME", "case", "document", "frozen", "suite", "utc"]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
NEW_FILE = click.Path(dir_okay=False, path_type=Path)
_FOLDER = click.Path(file_okay=False, path_type=Path)
TIME = click.DateTime(["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"])

case = click.option("--case", "case_id", help="Integrity case that reproduces it: its id, or `RIC-014`.")
suite = click.option("--suite", "folder", type=_FOLDER, help="Folder of that case [default: the shipped cases].")
frozen = click.option("--frozen", type=_FOLDER, help="Folder of the frozen evidence [default: frozen/ in the store's folder].")


def utc(time: dt.datetime | None) -> dt.datetime | None:
    """A time as typed, which is UTC."""
    return time.replace(tzinfo=dt.UTC) if time else None


def document(dossier: "Dossier") -> dict[str, object]:
    """All that was signed on an incident."""
    parts = {"triage": dossier.triage, "replay": dossier.replay, "closing": dossier.closing}
    signed = {name: part.record if part else None for name, part in parts.items()}
    return {"digest": dossier.digest, "state": dossier.state, "incident": dossier.incident, **signed}

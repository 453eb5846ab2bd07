"""`auditgap incident`: from an alarm to a case that the gate asks for from then on."""

from typing import TYPE_CHECKING

import click

from auditgap.cli.incident_closing import close, replay
from auditgap.cli.incident_opening import open_, triage
from auditgap.cli.incident_options import document
from auditgap.cli.options import as_json, json_flag, store, table

if TYPE_CHECKING:
    from auditgap.incidents import Dossier
    from auditgap.records import Measurement

__all__ = ["command"]


@click.group("incident")
def command() -> None:
    """Incidents: freeze, classify, replay with parts swapped, and close with a case that fails on what shipped."""


for _part in (open_, triage, replay, close):
    command.add_command(_part)


@command.command("list")
@store
@json_flag
def list_(store: str, as_json_: bool) -> None:
    """Every incident, where it stands, and its next deadline."""
    from auditgap.evidence import Store
    from auditgap.incidents import dossiers

    with Store.open(store, create=False) as opened:
        found = dossiers(opened)
    if as_json_:
        as_json([document(dossier) for dossier in found])
        return
    columns = ("incident", "state", "severity", "detected", "layer", "replay", "case", "respond by")
    table(f"{len(found)} incidents", columns, [_row(dossier) for dossier in found])


@command.command("indicators")
@store
@json_flag
def indicators(store: str, as_json_: bool) -> None:
    """Times to detect and to contain, regression cases, recurrence and false alarms, with n and interval."""
    from auditgap.evidence import Store
    from auditgap.incidents import dossiers
    from auditgap.incidents import indicators as measured

    with Store.open(store, create=False) as opened:
        found = measured(dossiers(opened))
    if as_json_:
        as_json(found)
    else:
        table("incident indicators", ("indicator", "value", "interval", "level", "n", "unit"), [_indicator(m) for m in found])


def _indicator(measurement: "Measurement") -> tuple[str, ...]:
    """The level too: a median of few incidents has an interval of a low one."""
    from auditgap.cli.render import measurement_row

    name, value, interval, n, unit = measurement_row(measurement)
    level = f"{measurement.interval.level:.0%}" if measurement.status == "measured" else ""
    return name, value, interval, level, n, unit


def _row(dossier: "Dossier") -> tuple[str, ...]:
    incident, triage, replay = dossier.incident, dossier.triage, dossier.replay
    return (
        incident.id,
        dossier.state,
        incident.severity + (" (near miss)" if incident.near_miss else ""),
        f"{incident.detected_at:%Y-%m-%d %H:%M}",
        f"{triage.record.layer} ({triage.record.place})" if triage else "-",
        replay.record.attributed if replay else "-",
        dossier.closing.record.case if dossier.closing else "-",
        f"{incident.respond_by:%Y-%m-%d %H:%M}",
    )

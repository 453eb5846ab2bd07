"""`auditgap incident open` and `auditgap incident triage`."""

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from auditgap.cli.incident_options import FILE, TIME, case, document, suite, utc
from auditgap.cli.incident_options import frozen as frozen_folder
from auditgap.cli.options import as_json, json_flag, store, table
from auditgap.records.incident import Category, Layer, Severity, Source

if TYPE_CHECKING:
    from auditgap.records import Incident

__all__ = ["open_", "triage"]


def _choice(literal: object) -> click.Choice[str]:
    return click.Choice(get_args(literal))


@click.command("open")
@click.argument("incident_id", metavar="ID")
@store
@click.option("--title", required=True, help="What happened, in a line; no names.")
@click.option("--severity", type=_choice(Severity), required=True)
@click.option("--source", type=_choice(Source), required=True)
@click.option("--alarm", help="Digest of the signed alarm, or its beginning.")
@click.option("--near-miss", is_flag=True, help="It was stopped before any harm.")
@click.option("--manifest", type=FILE, required=True, help="Manifest of the affected release.")
@click.option("--events", type=FILE, help="Event stream of the run.")
@click.option("--effects", type=FILE, help="Effect ledger of the run.")
@case
@suite
@click.option("--occurred", type=TIME, help="First occurrence, UTC, if it is known.")
@click.option("--detected", type=TIME, help="UTC [default: when the alarm was raised, else now].")
@click.option("--contained", type=TIME, help="UTC, if it is.")
@click.option("--owner", help="Who answers for it [default: the alarm's].")
@click.option("--response", help="What is done now [default: the alarm's].")
@click.option("--within-hours", type=click.FloatRange(min=0, min_open=True), help="Time for the response [default: the alarm's].")
@click.option("--clock", "clocks", multiple=True, help="Regime whose clocks start, e.g. eu-ai-act-73; may be repeated.")
@frozen_folder
@json_flag
def open_(
    incident_id: str,
    store: str,
    title: str,
    severity: "Severity",
    source: "Source",
    alarm: str | None,
    near_miss: bool,
    manifest: Path,
    events: Path | None,
    effects: Path | None,
    case_id: str | None,
    folder: Path | None,
    occurred: dt.datetime | None,
    detected: dt.datetime | None,
    contained: dt.datetime | None,
    owner: str | None,
    response: str | None,
    within_hours: float | None,
    clocks: tuple[str, ...],
    frozen: Path | None,
    as_json_: bool,
) -> None:
    """Freeze the evidence, start the clocks and sign incident ID."""
    from auditgap.evidence import Store
    from auditgap.incidents import Evidence, Happened, open_incident, read_case
    from auditgap.release.capture import read_manifest

    who = (owner, response, within_hours, clocks)
    times = (utc(occurred), utc(detected), utc(contained))
    happened = Happened(incident_id, title, severity, source, near_miss, alarm, *times, *who)
    chosen, stimuli = read_case(case_id, folder) if case_id else (None, ())
    evidence = Evidence(read_manifest(manifest), events, effects, chosen, stimuli)
    with Store.open(store) as opened:
        dossier = open_incident(opened, happened, evidence, frozen=frozen)
    as_json(document(dossier)) if as_json_ else _print_incident(dossier.incident)


@click.command("triage")
@click.argument("incident", metavar="ID")
@store
@click.option("--layer", type=_choice(Layer), required=True, help="Where it went wrong.")
@click.option("--failure-mode", required=True, help="Id from failure_modes.yaml.")
@click.option("--category", type=_choice(Category), required=True, help="Operational category.")
@click.option("--why", required=True, help="What speaks for it.")
@click.option("--by", required=True, help="Who judged it.")
@click.option("--false-alarm", is_flag=True, help="Nothing went wrong.")
@click.option("--ref", "refs", multiple=True, help="Id elsewhere: AIID, OECD AIM, MITRE ATLAS; may be repeated.")
@click.option("--plan", type=FILE, help="Review plan: print whose response is due.")
@json_flag
def triage(
    incident: str,
    store: str,
    layer: "Layer",
    failure_mode: str,
    category: "Category",
    why: str,
    by: str,
    false_alarm: bool,
    refs: tuple[str, ...],
    plan: Path | None,
    as_json_: bool,
) -> None:
    """Sign what kind of incident it is, and print what that sets off."""
    from auditgap.evidence import Store
    from auditgap.governance.review_records import load_review
    from auditgap.incidents import escalation, expired, triage_incident

    with Store.open(store, create=False) as opened:
        dossier = triage_incident(
            opened,
            incident,
            layer=layer,
            failure_mode=failure_mode,
            category=category,
            why=why,
            by=by,
            false_alarm=false_alarm,
            refs=refs,
        )
        gone = expired(opened, dossier)
    due = escalation(load_review(plan), dossier) if plan and not false_alarm else ()
    if as_json_:
        as_json(
            document(dossier) | {"expired": [e._asdict() for e in gone], "due": [d._asdict() | {"by": str(d.by)} for d in due]}
        )
        return
    click.echo(f"{dossier.incident.id}: {dossier.state}, {layer}, {failure_mode}, {category}")
    if due:
        table(
            "due now",
            ("trigger", "owner", "by", "response"),
            [(d.trigger or "none", d.owner, str(d.by), d.response) for d in due],
        )
    if gone:
        table("expired by it", ("kind", "what", "statement"), [(e.kind, e.name, e.digest[7:19] or "-") for e in gone])


def _print_incident(incident: "Incident") -> None:
    click.echo(f"opened {incident.id}: {incident.title}")
    click.echo(f"  release  {incident.release}")
    click.echo(f"  frozen   {incident.frozen}")
    click.echo(f"  now      {incident.response} ({incident.owner}, by {incident.respond_by:%Y-%m-%d %H:%M} UTC)")
    rows, unsettled = [], {}
    for clock in incident.clocks:
        if clock.status == "untimed":
            rows.append((clock.regime, "no time on record", "-", "-", clock.verified))
            unsettled[clock.regime] = (clock.reason,)
            continue
        working = f"{clock.due_working:%Y-%m-%d %H:%M}" if clock.due_working else "-"
        when = f"{clock.value:g} {clock.unit}: {clock.when}"
        rows.append((clock.regime, when, f"{clock.due:%Y-%m-%d %H:%M}", working, clock.verified))
        unsettled[clock.regime] = clock.unsettled
    if rows:
        table("clocks, counted from detection", ("regime", "time", "due", "if working days", "source"), rows)
    for regime, open_points in unsettled.items():
        for point in open_points:
            click.echo(f"  open     {regime}: {point}")

"""Opening an incident from an alarm, a report or a red team, and saying what kind of incident it is."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from auditgap.errors import UsageError, nearest
from auditgap.evidence import Store
from auditgap.governance import failure_modes
from auditgap.incidents.clocks import clocks_for
from auditgap.incidents.dossier import Dossier, dossiers, find
from auditgap.incidents.freezing import freeze
from auditgap.records import Alarm, Digest, Incident, Triage, now
from auditgap.records.incident import Category, Layer, Severity, Source
from auditgap.records.manifest import ReleaseManifest
from auditgap.release.cases import Case, Stimulus

__all__ = ["Evidence", "Happened", "open_incident", "triage_incident"]


class Happened(NamedTuple):
    """What is known when an incident is opened. What is None is taken from the alarm."""

    id: str
    title: str
    severity: Severity
    source: Source
    near_miss: bool = False
    alarm: str | None = None
    """The alarm's digest, or the beginning of it."""
    occurred_at: dt.datetime | None = None
    """The first occurrence; None if it is not known, also of an alarm."""
    detected_at: dt.datetime | None = None
    contained_at: dt.datetime | None = None
    owner: str | None = None
    response: str | None = None
    respond_within_hours: float | None = None
    regimes: Sequence[str] = ()
    """Whose clocks start."""


class Evidence(NamedTuple):
    """What is frozen beside the store."""

    manifest: ReleaseManifest
    """Of the affected release."""
    events: Path | None = None
    effects: Path | None = None
    case: Case | None = None
    stimuli: Sequence[Stimulus] = ()


def open_incident(store: Store, happened: Happened, evidence: Evidence, *, frozen: Path | None = None) -> Dossier:
    """Freeze the evidence, start the clocks and sign the incident. `frozen` is `frozen/` in the store's folder if not given.

    Raises:
        UsageError: the id is taken, there is no such alarm or regime, the alarm is about another release, or what only an alarm
            could say is missing.
    """
    if happened.id in {dossier.incident.id for dossier in dossiers(store)}:
        raise UsageError(f"incident '{happened.id}' is in {store.where} already; choose another id")
    if (happened.alarm is not None) != (happened.source == "alarm"):
        raise UsageError(f"source '{happened.source}' and alarm {happened.alarm}: an alarm is named exactly if it is the source")
    alarm, digest = _alarm(store, happened.alarm) if happened.alarm else (None, None)
    release = evidence.manifest.fingerprint()
    if alarm is not None and alarm.release not in (None, release):
        raise UsageError(
            f"the alarm is about release {str(alarm.release)[:19]}, the manifest is of {release[:19]}; freeze what ran"
        )
    opened = now()
    detected = happened.detected_at or (alarm.raised_at if alarm else opened)
    hours = happened.respond_within_hours or (alarm.deadline_hours if alarm else None)
    owner, response = happened.owner or (alarm.owner if alarm else None), happened.response or (alarm.response if alarm else None)
    if owner is None or response is None or hours is None:
        raise UsageError("expected owner, response and the hours for it: only an alarm brings its own, written before")
    clocks = clocks_for(happened.regimes, detected)
    kept = freeze(
        frozen or store.folder / "frozen",
        evidence.manifest,
        store=store,
        events=evidence.events,
        effects=evidence.effects,
        case=evidence.case,
        stimuli=evidence.stimuli,
    )
    incident = Incident.parse(
        {
            "id": happened.id,
            "title": happened.title,
            "source": happened.source,
            "alarm": digest,
            "release": release,
            "severity": happened.severity,
            "near_miss": happened.near_miss,
            "occurred_at": happened.occurred_at.isoformat() if happened.occurred_at else None,
            "detected_at": detected.isoformat(),
            "contained_at": happened.contained_at.isoformat() if happened.contained_at else None,
            "owner": owner,
            "response": response,
            "respond_by": (detected + dt.timedelta(hours=hours)).isoformat(),
            "clocks": [clock.model_dump(mode="json") for clock in clocks],
            "frozen": kept,
            "opened_at": opened.isoformat(),
        },
        where=f"incident {happened.id}",
    )
    return Dossier(store.add(incident), incident)


def triage_incident(
    store: Store,
    name: str,
    *,
    layer: Layer,
    failure_mode: str,
    category: Category,
    why: str,
    by: str,
    false_alarm: bool = False,
    refs: Sequence[str] = (),
) -> Dossier:
    """Sign what kind of incident it is. It may be judged anew until it is closed; the newest judgement counts.

    Raises:
        UsageError: no such incident or failure mode, or it is closed.
    """
    dossier = find(store, name)
    if dossier.closing is not None:
        raise UsageError(f"incident '{dossier.incident.id}' is closed; what comes up again is a new incident")
    if failure_mode not in (known := failure_modes()):
        raise UsageError(f"no failure mode '{failure_mode}'{nearest(failure_mode, known)}")
    triage = Triage(
        incident=dossier.digest,
        release=dossier.incident.release,
        finding="false-alarm" if false_alarm else "confirmed",
        layer=layer,
        failure_mode=failure_mode,
        category=category,
        refs=tuple(refs),
        why=why,
        by=by,
        triaged_at=now(),
    )
    store.add(triage)
    return find(store, dossier.digest)


def _alarm(store: Store, prefix: str) -> tuple[Alarm, Digest]:
    found = store.get(prefix)
    if not isinstance(found.record, Alarm):
        raise UsageError(f"{prefix} is a {type(found.record).__name__}, expected an alarm; see 'auditgap evidence list'")
    return found.record, found.digest

"""Everything that a store holds on an incident, and where it stands."""

from typing import Literal, NamedTuple

from auditgap.errors import UsageError, nearest
from auditgap.evidence import Store, Stored
from auditgap.records import Closing, Digest, Incident, Replay, Triage

__all__ = ["Dossier", "State", "dossiers", "find"]

State = Literal["open", "triaged", "replayed", "closed", "false-alarm"]


class Dossier(NamedTuple):
    """An incident with the newest of what was signed on it."""

    digest: Digest
    """Of the signed incident."""
    incident: Incident
    triage: Stored[Triage] | None = None
    replay: Stored[Replay] | None = None
    closing: Stored[Closing] | None = None

    @property
    def state(self) -> State:
        """Where it stands; a false alarm has nothing to close."""
        if self.closing is not None:
            return "closed"
        if self.triage is not None and self.triage.record.finding == "false-alarm":
            return "false-alarm"
        if self.replay is not None:
            return "replayed"
        return "open" if self.triage is None else "triaged"


def dossiers(store: Store) -> list[Dossier]:
    """Every incident of a store, oldest first."""
    triages = {stored.record.incident: stored for stored in store.of(Triage)}  # the newest of an incident stays
    replays = {stored.record.incident: stored for stored in store.of(Replay)}
    closings = {stored.record.incident: stored for stored in store.of(Closing)}
    return [
        Dossier(s.digest, s.record, triages.get(s.digest), replays.get(s.digest), closings.get(s.digest))
        for s in store.of(Incident)
    ]


def find(store: Store, name: str) -> Dossier:
    """The incident of that id, or whose digest begins so.

    Raises:
        UsageError: there is none, or several.
    """
    every = dossiers(store)
    digits = name.removeprefix("sha256:")
    found = [d for d in every if d.incident.id == name] or [
        d for d in every if len(digits) >= 6 and d.digest.removeprefix("sha256:").startswith(digits)
    ]
    if len(found) != 1:
        listed = nearest(name, (d.incident.id for d in every)) if not found else f": {', '.join(d.digest for d in found)}"
        raise UsageError(f"expected one incident '{name}' in {store.where}, found {len(found)}{listed}")
    return found[0]

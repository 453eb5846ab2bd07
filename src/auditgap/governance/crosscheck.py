"""Do the tables agree with each other and with the instruments that exist? Each file alone is checked when it is read."""

from collections.abc import Collection, Iterator
from typing import NamedTuple

from auditgap.errors import PlanError, nearest
from auditgap.governance.claim import claims
from auditgap.governance.crosswalk import Framework, frameworks
from auditgap.governance.failure_mode import FailureMode, failure_modes
from auditgap.governance.licensing import Licences, licences
from auditgap.records import Claim

__all__ = ["Tables", "check_tables", "dangling", "shipped_tables"]


class Tables(NamedTuple):
    """Everything that refers to everything else by id."""

    failure_modes: Collection[FailureMode]
    claims: Collection[Claim]
    licences: Licences
    frameworks: Collection[Framework]


def shipped_tables() -> Tables:
    """The tables of this installation."""
    return Tables(failure_modes().values(), claims().values(), licences(), frameworks().values())


def check_tables(tables: Tables, *, instruments: Collection[str]) -> None:
    """Refuse tables with ids that lead nowhere. `instruments` are the names of those that exist.

    Raises:
        PlanError: all dangling ids, each with the nearest known one.
    """
    if found := list(dangling(tables, instruments=instruments)):
        raise PlanError("; ".join(found))


def dangling(tables: Tables, *, instruments: Collection[str]) -> Iterator[str]:
    """One sentence per id that leads nowhere."""
    modes, known = {mode.id for mode in tables.failure_modes}, {claim.id for claim in tables.claims}
    references: list[tuple[str, str, str, Collection[str]]] = []
    for mode in tables.failure_modes:
        named = [d.instrument for d in mode.detection if d.instrument]
        references += [(f"failure mode '{mode.id}'", "instrument", name, instruments) for name in named]
    for claim in tables.claims:
        references += [(f"claim '{claim.id}'", "failure mode", name, modes) for name in claim.failure_modes]
        references += [(f"claim '{claim.id}'", "instrument", b.instrument, instruments) for b in claim.bearings]
    for entry in tables.licences.instruments:
        references.append((f"licence '{entry.id}'", "instrument", entry.id, instruments))
        references += [(f"licence '{entry.id}'", "failure mode", p.failure_mode, modes) for p in entry.power]
    for framework in tables.frameworks:
        references += [(f"{framework.id} '{r.id}'", "claim", name, known) for r in framework.requirements for name in r.claims]
    for where, kind, name, among in references:
        if name not in among:
            yield f"{where} names the unknown {kind} '{name}'{nearest(name, among)}"

"""Do the tables agree with each other and with the instruments that exist? Each file alone is checked when it is read.

1. Every id leads somewhere, and no duty id is used by two frameworks.
2. Every duty presupposes a claim (a duty of the organisation a process claim), requires access, and says what would be accepted.
3. Every acceptance criterion can be met by something that exists, or says why not.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from auditgap.errors import PlanError, nearest
from auditgap.governance.acceptance import Acceptance, acceptances, unreachable
from auditgap.governance.claim import claims
from auditgap.governance.crosswalk import Framework, Row, frameworks, join
from auditgap.governance.failure_mode import FailureMode, failure_modes
from auditgap.governance.licensing import Licences, licences
from auditgap.records import Claim, ModelAccess

__all__ = ["Tables", "check_crosswalks", "check_tables", "dangling", "findings", "incomplete", "shipped_tables"]


class Tables(NamedTuple):
    """Everything that refers to everything else by id."""

    failure_modes: Collection[FailureMode]
    claims: Collection[Claim]
    licences: Licences
    frameworks: Collection[Framework]
    acceptances: Collection[Acceptance]


def shipped_tables() -> Tables:
    """The tables of this installation."""
    return Tables(failure_modes().values(), claims().values(), licences(), frameworks().values(), acceptances().values())


def check_crosswalks(folder: Path | None = None) -> list[str]:
    """Everything that is wrong with the shipped frameworks, or with those of `folder` beside the shipped claims and criteria.

    `folder` holds frameworks/NAME.yaml and crosswalks/NAME.yaml. The instruments that exist are those of the licence table.

    Raises:
        PlanError: the folder holds no framework file.
    """
    tables = shipped_tables()
    found, malformed = (tables.frameworks, []) if folder is None else _own(folder)
    instruments = {entry.id for entry in tables.licences.instruments}
    return [*malformed, *findings(tables._replace(frameworks=found), instruments=instruments)]


def _own(folder: Path) -> tuple[list[Framework], list[str]]:
    """The frameworks of a folder, and what was wrong with those that could not be read."""
    paths = sorted((folder / "frameworks").glob("*.yaml"))
    if not paths:
        raise PlanError(f"{folder}: expected frameworks/NAME.yaml and crosswalks/NAME.yaml, found none; check the path")
    found, malformed = [], []
    for path in paths:
        try:
            found.append(join(path, folder / "crosswalks" / path.name))
        except PlanError as error:
            malformed.append(str(error))
    return found, malformed


def check_tables(tables: Tables, *, instruments: Collection[str]) -> None:
    """Refuse tables that do not hold together. `instruments` are the names of those that exist.

    Raises:
        PlanError: every finding, in one message.
    """
    if found := list(findings(tables, instruments=instruments)):
        raise PlanError("; ".join(found))


def findings(tables: Tables, *, instruments: Collection[str]) -> Iterator[str]:
    """One sentence per thing that is wrong; none if the tables hold together."""
    yield from dangling(tables, instruments=instruments)
    yield from _shared_ids(tables.frameworks)
    criteria, known = {a.id: a for a in tables.acceptances}, {claim.id: claim for claim in tables.claims}
    for framework in tables.frameworks:
        for row in framework.rows:
            for lack in incomplete(row, criteria, known):
                yield f"{framework.id} '{row.duty}' {lack}"
    for acceptance in tables.acceptances:
        yield from unreachable(acceptance, known, tables.licences)


def dangling(tables: Tables, *, instruments: Collection[str]) -> Iterator[str]:
    """One sentence per id that leads nowhere."""
    modes, known = {mode.id for mode in tables.failure_modes}, {claim.id for claim in tables.claims}
    criteria = {acceptance.id for acceptance in tables.acceptances}
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
    for acceptance in tables.acceptances:
        references.append((f"criterion '{acceptance.id}'", "claim", acceptance.claim, known))
        references += [(f"criterion '{acceptance.id}'", "instrument", name, instruments) for name in acceptance.instruments]
    for framework in tables.frameworks:
        duties = {r.id for r in framework.requirements}
        references += [(framework.id, "failure mode", naming.failure_mode, modes) for naming in framework.names]
        references += [(f"{framework.id} '{n.id}'", "duty", duty, duties) for n in framework.numbers for duty in n.duties]
        references += [(f"{framework.id} '{r.id}'", "claim", name, known) for r in framework.requirements for name in r.claims]
        references += [(f"{framework.id} '{r.duty}'", "criterion", name, criteria) for r in framework.rows for name in r.accepts]
    for where, kind, name, among in references:
        if name not in among:
            yield f"{where} names the unknown {kind} '{name}'{nearest(name, among)}"


def incomplete(row: Row, criteria: Mapping[str, Acceptance], claims: Mapping[str, Claim]) -> Iterator[str]:
    """What a row still owes: a claim, coverage, accepted evidence, and at least one criterion for each of its own claims."""
    if row.no_hook:
        yield f"presupposes no claim ({row.no_hook}); a duty of the organisation presupposes a process claim"
        return
    if row.coverage is None:
        yield "does not say how much of the duty its claims cover; add coverage"
    if not row.evidence:
        yield "does not say what evidence is accepted; add evidence"
    accepted = [criteria[name].claim for name in row.accepts if name in criteria]
    for claim in row.claims:
        if claim not in accepted:
            yield f"has no acceptance criterion for the claim '{claim}'; add one to accepts"
    for claim in dict.fromkeys(accepted):
        if claim not in row.claims:
            yield f"accepts a criterion for '{claim}', which it does not presuppose; remove it, or add the claim"
    processes = [claim for claim in row.claims if claim in claims and claims[claim].modality == "process"]
    if processes and row.required.model != ModelAccess.M0:
        yield f"requires model access, which the process claim '{processes[0]}' cannot use; make it a duty of its own"


def _shared_ids(found: Collection[Framework]) -> Iterator[str]:
    """Assessments name a duty by its id alone, so no two frameworks may share one."""
    owners: dict[str, str] = {}
    for framework in found:
        for requirement in framework.requirements:
            first = owners.setdefault(requirement.id, framework.id)
            if first != framework.id:
                yield f"duty id '{requirement.id}' is used by {first} and {framework.id}; rename one"

"""The six kinds of statement: which record each holds, who signs it, what it cites and how it is found again."""

import json
from typing import NamedTuple

from pydantic import ValidationError

from auditgap.errors import EvidenceInvalid
from auditgap.evidence.envelope import Opened, statement
from auditgap.evidence.keys import KeyRecord, Role
from auditgap.records import Assessment, Calibration, Decision, Digest, Evidence, Record, Registration, explain

__all__ = ["KINDS", "Citation", "Columns", "citations", "columns", "parse", "payload", "predicate_type", "role_of"]

KINDS: dict[str, type[Record]] = {
    "key": KeyRecord,
    "registration": Registration,
    "evidence": Evidence,
    "assessment": Assessment,
    "decision": Decision,
    "calibration": Calibration,
}


class Columns(NamedTuple):
    """What the database repeats of a statement so that it can be found; verification compares each with the signed payload."""

    kind: str
    subject: Digest
    step: str | None = None
    instrument: str | None = None
    spec: Digest | None = None
    created_at: str | None = None
    """The time that the record states; None for an assessment, which states none."""


class Citation(NamedTuple):
    """A statement that another one rests on."""

    digest: Digest
    kind: str


def predicate_type(kind: str) -> str:
    """The in-toto predicate type of a kind."""
    return f"https://auditgap.dev/{kind}/v1"


def role_of(record: Record) -> Role:
    """Whose key must sign this record: an evaluator cannot sign a decision, a gate cannot sign evidence."""
    if isinstance(record, KeyRecord):
        return record.role
    return "gate" if isinstance(record, Decision) else "evaluation"


def columns(record: Record) -> Columns:
    """What the database repeats of this record."""
    match record:
        case KeyRecord():
            return Columns("key", record.keyid, created_at=_time(record, "created_at"))
        case Registration():
            time = _time(record, "registered_at")
            return Columns("registration", record.subject, record.step, record.card.name, record.spec(), time)
        case Evidence():
            time = _time(record, "finished_at")
            return Columns("evidence", record.subject.digest(), record.step, record.instrument, record.spec, time)
        case Assessment():
            return Columns("assessment", record.subject)
        case Decision():
            return Columns("decision", record.subject, created_at=_time(record, "decided_at"))
        case Calibration():
            return Columns("calibration", record.ledger_root, created_at=_time(record, "made_at"))
    raise TypeError(f"no statement holds a {type(record).__name__}; the kinds are {', '.join(KINDS)}")


def citations(record: Record) -> tuple[Citation, ...]:
    """The statements that must be in the ledger before this one."""
    match record:
        case Evidence():
            return (Citation(record.registration, "registration"),)
        case Assessment():
            return tuple(Citation(digest, "evidence") for digest in record.evidence)
        case Decision():
            cited = [Citation(c.evidence, "evidence") for c in record.criteria if c.evidence is not None]
            return (*(Citation(digest, "assessment") for digest in record.assessments), *cited)
    return ()


def payload(record: Record) -> bytes:
    """The canonical bytes of the Statement that says this record."""
    found = columns(record)
    match record:
        case Evidence():
            name = record.subject.name
        case KeyRecord():
            name = record.role
        case Registration():
            name = record.step
        case _:
            name = "subject"
    return statement(record, subject_name=name, subject_digest=found.subject, predicate_type=predicate_type(found.kind))


def parse(opened: Opened) -> Record:
    """The record in a statement.

    Raises:
        EvidenceInvalid: the predicate type is unknown, or the payload is not the canonical form of its record.
    """
    known = {predicate_type(kind): record for kind, record in KINDS.items()}
    named = opened.statement.get("predicateType")
    if not isinstance(named, str) or named not in known:
        raise EvidenceInvalid(f"expected one of the predicate types {', '.join(known)}, got {named!r}")
    try:
        record = known[named].model_validate_json(json.dumps(opened.statement.get("predicate")))
        canonical = payload(record)
    except ValidationError as error:
        raise EvidenceInvalid(f"the predicate is not what {named} says: {explain(error, known[named])}") from None
    except ValueError as error:  # a number that RFC 8785 cannot print
        raise EvidenceInvalid(f"the predicate of {named} has no canonical form: {error}") from None
    if canonical != opened.payload:
        raise EvidenceInvalid(f"the payload is not the canonical form of its {named} record")
    return record


def _time(record: Record, field: str) -> str:
    return record.model_dump(mode="json", include={field})[field]

"""The kinds of statement: which record each holds, who signs it, what it cites and how it is found again."""

import json
from typing import NamedTuple

from pydantic import ValidationError

from auditgap.errors import EvidenceInvalid
from auditgap.evidence.envelope import Opened, statement
from auditgap.evidence.keys import KeyRecord, Role
from auditgap.records import (
    Alarm,
    Assessment,
    Calibration,
    Closing,
    Decision,
    Digest,
    Evidence,
    Incident,
    IntegrityRun,
    MonitorCard,
    Parity,
    Record,
    Registration,
    ReleaseCheck,
    ReleaseManifest,
    Replay,
    SuiteRegistration,
    Triage,
    explain,
)

__all__ = [
    "KINDS",
    "Citation",
    "Columns",
    "citations",
    "columns",
    "kind_of",
    "parse",
    "payload",
    "predicate_type",
    "role_of",
]

KINDS: dict[str, type[Record]] = {
    "key": KeyRecord,
    "registration": Registration,
    "evidence": Evidence,
    "assessment": Assessment,
    "decision": Decision,
    "calibration": Calibration,
    "alarm": Alarm,
    "incident": Incident,
    "triage": Triage,
    "replay": Replay,
    "closing": Closing,
    "monitor": MonitorCard,
    "release-manifest": ReleaseManifest,
    "parity": Parity,
    "suite-registration": SuiteRegistration,
    "integrity-run": IntegrityRun,
    "release-check": ReleaseCheck,
}


class Columns(NamedTuple):
    """What the database repeats of a statement so that it can be found; verification compares each with the signed payload."""

    kind: str
    subject: Digest
    step: str | None = None
    instrument: str | None = None
    spec: Digest | None = None
    created_at: str | None = None
    """The time that the record states; None for an assessment or a parity, which state none."""


class Citation(NamedTuple):
    """A statement that another one rests on."""

    digest: Digest
    kind: str


def predicate_type(kind: str) -> str:
    """The in-toto predicate type of a kind."""
    return f"https://auditgap.dev/{kind}/v1"


def kind_of(record: type[Record]) -> str:
    """The kind of statement that holds this type of record."""
    return next(kind for kind, held in KINDS.items() if held is record)


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
        case MonitorCard():
            return Columns("monitor", record.subject.digest(), record.name, created_at=_time(record, "fitted_at"))
        case ReleaseManifest():
            return Columns("release-manifest", record.fingerprint(), created_at=_time(record, "captured_at"))
        case Parity():
            return Columns("parity", record.after)
        case SuiteRegistration():
            return Columns("suite-registration", record.suite, created_at=_time(record, "registered_at"))
        case IntegrityRun():
            return Columns("integrity-run", record.manifest or record.suite, created_at=_time(record, "finished_at"))
        case ReleaseCheck():
            return Columns("release-check", record.manifest, record.name, created_at=_time(record, "finished_at"))
        case Alarm():
            return Columns("alarm", record.policy, record.stream, spec=record.spec, created_at=_time(record, "raised_at"))
        case Incident():
            return Columns("incident", record.release, record.id, created_at=_time(record, "opened_at"))
        case Triage():
            return Columns("triage", record.release, created_at=_time(record, "triaged_at"))
        case Replay():
            return Columns("replay", record.affected, record.case, created_at=_time(record, "replayed_at"))
        case Closing():
            return Columns("closing", record.affected, record.case, created_at=_time(record, "closed_at"))
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
        case Incident():
            return (Citation(record.alarm, "alarm"),) if record.alarm else ()
        case Triage() | Replay():
            return (Citation(record.incident, "incident"),)
        case Closing():
            replayed = [Citation(record.replay, "replay")] if record.replay else []
            return (Citation(record.incident, "incident"), Citation(record.triage, "triage"), *replayed)
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
        case Alarm():
            name = record.stream
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

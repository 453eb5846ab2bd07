"""Reading a ledger so that nothing passes unverified: keys, roles, and what came before what.

1. The first statement is the evaluation key, signed by itself. The first gate key is signed by itself too.
2. A later key of a role is signed by the key that it replaces, which signs nothing from there on.
3. Every other statement is signed by the key of its role that is active at its leaf: `gate` for decisions, else `evaluation`.
4. What a statement cites is an earlier statement of the right kind; evidence also matches its registration.
"""

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

from auditgap.errors import EvidenceInvalid, RegistrationError, UsageError
from auditgap.evidence.envelope import open_envelope, public_key, read_unverified
from auditgap.evidence.keys import ROLES, KeyRecord, Role
from auditgap.evidence.kinds import Columns, citations, columns, parse, predicate_type, role_of
from auditgap.evidence.merkle import leaf_hash
from auditgap.records import Digest, Evidence, Record, Registration, digest_of

__all__ = ["KeyHistory", "Row", "Snapshot", "Stored", "check_citations", "check_registered", "leaf_of", "read"]

R = TypeVar("R", bound=Record, covariant=True)


class Stored(NamedTuple, Generic[R]):
    """A record that was read from the ledger with its signature verified."""

    digest: Digest
    """Of the envelope's bytes; the ledger entry."""
    leaf: int
    """Position in the ledger, from 0."""
    record: R
    keyid: Digest
    """Fingerprint of the key that signed it."""
    role: Role


class KeyHistory(NamedTuple):
    """Every key statement so far, in leaf order."""

    keys: tuple[Stored[KeyRecord], ...] = ()

    def active(self, role: Role, leaf: int) -> KeyRecord | None:
        """The key that signs for this role at this leaf."""
        return next((key.record for key in reversed(self.keys) if key.record.role == role and key.leaf < leaf), None)

    def with_key(self, key: Stored[KeyRecord]) -> "KeyHistory":
        """The history after one more key statement."""
        return KeyHistory((*self.keys, key))


class Row(NamedTuple):
    """One statement as a database or a bundle holds it, before anything is believed."""

    leaf: int
    digest: str
    envelope: bytes
    columns: Columns | None = None
    """None in a bundle, which repeats nothing of the payload."""


class Snapshot(NamedTuple):
    """Everything that verification looks at, read at one moment."""

    rows: tuple[Row, ...]
    checkpoints: tuple[tuple[int, str], ...]
    """Size as recorded, and signed note; smallest first."""
    blobs: tuple[Digest, ...]
    blob: Callable[[Digest], bytes]
    """Reads one blob; raises StoreError or EvidenceInvalid."""
    damage: tuple[str, ...] = ()
    """What the container itself reports, e.g. SQLite's integrity check."""


def leaf_of(digest: Digest) -> bytes:
    """The Merkle leaf of a statement: its ledger entry is the 32 bytes of its digest."""
    return leaf_hash(bytes.fromhex(digest.removeprefix("sha256:")))


def read(row: Row, history: KeyHistory) -> Stored[Record]:
    """Verify one statement at its leaf: digest, signature, role, form, key chain, and the columns that repeat it.

    Raises:
        EvidenceInvalid: one of them does not hold; the message names leaf and digest.
    """
    try:
        if digest_of(row.envelope) != row.digest:
            raise EvidenceInvalid(f"the envelope's bytes have digest {digest_of(row.envelope)}")
        active = {role: history.active(role, row.leaf) for role in ROLES}
        newcomer = _newcomer(row.envelope) if None in active.values() else None
        if newcomer is not None and active[newcomer.role] is None:
            active[newcomer.role] = newcomer
        opened = open_envelope(row.envelope, [public_key(key.raw) for key in active.values() if key is not None])
        record = parse(opened)
        role, found = role_of(record), columns(record)
        if isinstance(record, KeyRecord):
            _check_key(record, row.leaf, history)
        signer = next(name for name, key in active.items() if key is not None and key.keyid == opened.keyid)
        if signer != role:
            raise EvidenceInvalid(f"a {found.kind} must be signed by the {role} key, this one is signed by the {signer} key")
        if row.columns is not None and row.columns != found:
            differing = [name for name, *pair in zip(Columns._fields, row.columns, found, strict=True) if pair[0] != pair[1]]
            raise EvidenceInvalid(f"the database differs from the signed payload in {', '.join(differing)}")
    except EvidenceInvalid as error:
        raise EvidenceInvalid(f"statement {row.leaf} ({row.digest}): {error}") from None
    return Stored(row.digest, row.leaf, record, opened.keyid, role)


def check_citations(record: Record, find: Callable[[Digest], Stored[Record] | None]) -> None:
    """Check that everything this record cites came before it; `find` looks among the earlier statements.

    Raises:
        RegistrationError: evidence without, before or unlike its registration.
        UsageError: another record cites a statement that is not there or of another kind.
    """
    kind = columns(record).kind
    error = RegistrationError if isinstance(record, Evidence) else UsageError
    for cited in citations(record):
        found = find(cited.digest)
        if found is None:
            raise error(
                f"this {kind} cites {cited.kind} {cited.digest}, which is not earlier in the ledger: sign the {cited.kind} first"
            )
        found_kind = columns(found.record).kind
        if found_kind != cited.kind:
            raise error(f"this {kind} cites {cited.digest} as {cited.kind}, but that statement is a {found_kind}")
        if isinstance(record, Evidence) and isinstance(found.record, Registration):
            check_registered(record, found.record)


def check_registered(evidence: Evidence, registration: Registration) -> None:
    """Check that evidence is of the run that was registered.

    Raises:
        RegistrationError: step, subject, instrument, version or specification differ, the run began before it was registered,
            or imported results claim a registered bar.
    """
    for what, registered, got in (
        ("step", registration.step, evidence.step),
        ("subject", registration.subject, evidence.subject.digest()),
        ("instrument", registration.card.name, evidence.instrument),
        ("instrument version", registration.card.version, evidence.version),
        ("specification (settings, data, thresholds, seed)", registration.spec(), evidence.spec),
    ):
        if registered != got:
            raise RegistrationError(
                f"step '{evidence.step}': registered {what} {registered}, got {got}: "
                "run what was registered, or register this run first"
            )
    if evidence.imported is not None:
        if registration.thresholds:
            raise RegistrationError(
                f"step '{evidence.step}': imported results cite a registration with {len(registration.thresholds)} thresholds, "
                "expected none: a bar that is set after the results is no registered bar"
            )
    elif evidence.started_at < registration.registered_at:
        raise RegistrationError(
            f"step '{evidence.step}': the run started at {evidence.started_at}, before it was registered at "
            f"{registration.registered_at}: register, then run again"
        )


def _newcomer(data: bytes) -> KeyRecord | None:
    """The key that an envelope claims to announce, before its signature is checked; None for any other statement."""
    claimed = read_unverified(data)
    if claimed.statement.get("predicateType") != predicate_type("key"):
        return None
    record = parse(claimed)
    return record if isinstance(record, KeyRecord) else None


def _check_key(record: KeyRecord, leaf: int, history: KeyHistory) -> None:
    if leaf == 0 and record.role != "evaluation":
        raise EvidenceInvalid(f"the first statement must be the evaluation key, got the {record.role} key")
    replaced = history.active(record.role, leaf)
    if record.replaces != (replaced.keyid if replaced else None):
        raise EvidenceInvalid(
            f"expected the {record.role} key to replace {replaced.keyid if replaced else None}, got {record.replaces}"
        )
    if any(record.keyid == known.record.keyid for known in history.keys if known.leaf < leaf):
        raise EvidenceInvalid(f"key {record.keyid} was in the ledger before; a key serves one role, once")

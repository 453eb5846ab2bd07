"""Adding to the ledger inside one transaction that holds the write lock.

1. Catch up with what other processes appended; the tree must have the root that the last checkpoint signed.
2. Make the keys that are missing: the evaluation key is always the first statement.
3. Check what the new record cites; sign it; read it back as a verifier would.
4. Write statement and new signed checkpoint.
"""

from typing import cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import Connection, func, select

from auditgap.errors import EvidenceInvalid
from auditgap.evidence import tables
from auditgap.evidence.checkpoint import Checkpoint, open_checkpoint, sign_checkpoint
from auditgap.evidence.envelope import sign
from auditgap.evidence.keys import KeyRecord, Keyring, Role, fingerprint
from auditgap.evidence.kinds import columns, payload, role_of
from auditgap.evidence.ledger import Row, Stored, check_citations, leaf_of, read
from auditgap.evidence.merkle import Frontier
from auditgap.evidence.rows import key_history, last_checkpoint, rows
from auditgap.records import Digest, Record, digest_of, now

__all__ = ["Appender", "origin_of"]

_S = tables.statement.c


def origin_of(first: Digest) -> str:
    """The name of a ledger, from the digest of its first statement."""
    return f"auditgap.dev/ledger/{first.removeprefix('sha256:')[:32]}"


class Appender:
    """The ledger as one write transaction sees it; `tree` is what to remember after the commit."""

    def __init__(self, connection: Connection, keyring: Keyring, tree: Frontier) -> None:
        self._connection = connection
        self._keyring = keyring
        self.keys = key_history(connection)
        self.tree = self._caught_up(tree)

    def append(self, record: Record) -> Digest:
        """Sign and write one record; a statement that is already there is not written twice.

        Raises:
            RegistrationError, UsageError: what it cites is not in the ledger, or is not what it says.
            EvidenceInvalid: the ledger does not match its last checkpoint.
            StoreError: the key is missing or readable by others.
        """
        if not self.tree.size:
            self._introduce("evaluation")
        role = role_of(record)
        if self.keys.active(role, self.tree.size) is None:
            self._introduce(role)
        envelope = sign(payload(record), self._key(role))
        if rows(self._connection, _S.digest == digest_of(envelope)):
            return digest_of(envelope)
        stored = self._read_back(envelope)
        check_citations(stored.record, self.find)
        return self._write(stored, envelope, notary=self._key("evaluation"))

    def rotate(self, role: Role) -> Digest:
        """Announce a fresh key, signed by the one that it retires; return its fingerprint."""
        if not self.tree.size:
            self._introduce("evaluation")
        if self.keys.active(role, self.tree.size) is None:
            self._introduce(role)
        old, new = self._key(role), self._keyring.stage(role)
        record = _key_record(role, new, replaces=fingerprint(old))
        self._write_key(record, signer=old, notary=new if role == "evaluation" else self._key("evaluation"))
        return record.keyid

    def find(self, digest: Digest) -> Stored[Record] | None:
        """An earlier statement, verified; None if there is none with this digest."""
        found = rows(self._connection, _S.digest == digest)
        return read(found[0], self.keys) if found else None

    def _introduce(self, role: Role) -> None:
        key = self._keyring.first(role)
        record = _key_record(role, key, replaces=None)
        self._write_key(record, signer=key, notary=key if role == "evaluation" else self._key("evaluation"))

    def _write_key(self, record: KeyRecord, *, signer: Ed25519PrivateKey, notary: Ed25519PrivateKey) -> None:
        envelope = sign(payload(record), signer)
        stored = self._read_back(envelope)
        self.keys = self.keys.with_key(cast("Stored[KeyRecord]", stored))
        self._write(stored, envelope, notary=notary)

    def _key(self, role: Role) -> Ed25519PrivateKey:
        active = self.keys.active(role, self.tree.size)
        assert active is not None
        return self._keyring.find(role, active.keyid)

    def _read_back(self, envelope: bytes) -> Stored[Record]:
        """The new statement as a verifier will see it."""
        return read(Row(self.tree.size, digest_of(envelope), envelope), self.keys)

    def _write(self, stored: Stored[Record], envelope: bytes, *, notary: Ed25519PrivateKey) -> Digest:
        values = columns(stored.record)._asdict() | {"leaf": stored.leaf, "digest": stored.digest, "envelope": envelope}
        self._connection.execute(tables.statement.insert().values(values))
        self.tree = self.tree.append(leaf_of(stored.digest))
        checkpoint = Checkpoint(origin_of(self.keys.keys[0].digest), self.tree.size, self.tree.root())
        note = sign_checkpoint(checkpoint, notary)
        self._connection.execute(tables.checkpoint.insert().values(size=checkpoint.size, note=note))
        return stored.digest

    def _caught_up(self, tree: Frontier) -> Frontier:
        """The tree with what was appended since, held against the last checkpoint."""
        query = select(_S.digest).where(_S.leaf >= tree.size).order_by(_S.leaf)
        try:
            for digest in self._connection.execute(query).scalars():
                tree = tree.append(leaf_of(digest))
        except ValueError:
            raise EvidenceInvalid("a digest in the ledger is malformed: run 'auditgap evidence verify'") from None
        there = self._connection.execute(select(func.count()).select_from(tables.statement)).scalar()
        note, notary = last_checkpoint(self._connection), self.keys.active("evaluation", tree.size)
        if note is None and tree.size == there == 0:
            return tree
        signed = open_checkpoint(note, notary.raw) if note and notary else None
        if signed is None or (signed.size, signed.root) != (there, tree.root()):
            raise EvidenceInvalid(
                "the ledger does not match its last signed checkpoint: run 'auditgap evidence verify' to see where"
            )
        return tree


def _key_record(role: Role, key: Ed25519PrivateKey, *, replaces: Digest | None) -> KeyRecord:
    return KeyRecord(role=role, public_key=key.public_key().public_bytes_raw().hex(), replaces=replaces, created_at=now())

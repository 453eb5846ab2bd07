"""Reading the tables on an open connection."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Self, cast

from sqlalchemy import ColumnElement, Connection, LargeBinary, select, text
from sqlalchemy import cast as as_type

from auditgap.evidence import tables
from auditgap.evidence.keys import KeyRecord, Role
from auditgap.evidence.kinds import Columns
from auditgap.evidence.ledger import KeyHistory, Row, Snapshot, Stored, read
from auditgap.records import Digest

__all__ = ["KeyRow", "Listed", "key_history", "last_checkpoint", "rows", "snapshot"]


class Listed(NamedTuple):
    """One line of the ledger, for people."""

    leaf: int
    digest: Digest
    kind: str
    subject: Digest
    step: str | None
    instrument: str | None
    spec: Digest | None
    created_at: str | None


class KeyRow(NamedTuple):
    """One key that the ledger knows."""

    role: Role
    fingerprint: Digest
    status: str
    """`active` or `retired`."""
    created_at: str
    leaf: int

    @classmethod
    def listed(cls, keys: Sequence[Stored[KeyRecord]]) -> list[Self]:
        """One row per key, in the same order."""
        retired = {key.record.replaces for key in keys}
        return [
            cls(
                key.role,
                key.record.keyid,
                "retired" if key.record.keyid in retired else "active",
                f"{key.record.created_at:%Y-%m-%dT%H:%M:%SZ}",
                key.leaf,
            )
            for key in keys
        ]


_S = tables.statement.c


def rows(connection: Connection, *conditions: ColumnElement[bool]) -> list[Row]:
    """The statements that meet the conditions, in leaf order, unverified."""
    envelope = as_type(_S.envelope, LargeBinary)  # an altered SQLite value may be text: read its bytes all the same
    query = select(_S.leaf, _S.digest, envelope, *(_S[name] for name in Columns._fields)).where(*conditions).order_by(_S.leaf)
    return [
        Row(leaf, digest, bytes(data), Columns(*found)) for leaf, digest, data, *found in map(tuple, connection.execute(query))
    ]


def key_history(connection: Connection) -> KeyHistory:
    """Every key of the ledger, each verified by the one before it."""
    history = KeyHistory()
    for row in rows(connection, _S.kind == "key"):
        history = history.with_key(cast("Stored[KeyRecord]", read(row, history)))
    return history


def last_checkpoint(connection: Connection) -> str | None:
    """The signed note of the largest size, or None for an empty ledger."""
    return connection.execute(select(tables.checkpoint.c.note).order_by(tables.checkpoint.c.size.desc()).limit(1)).scalar()


def snapshot(connection: Connection, blob: Callable[[Digest], bytes]) -> Snapshot:
    """Everything that verification looks at, unverified; `blob` reads one blob."""
    damage: list[str] = []
    if connection.dialect.name == "sqlite":
        damage = [said for said in connection.execute(text("PRAGMA integrity_check")).scalars() if said != "ok"]
    checkpoints = connection.execute(select(tables.checkpoint).order_by(tables.checkpoint.c.size))
    blobs = connection.execute(select(tables.blob.c.digest).order_by(tables.blob.c.digest)).scalars()
    notes = tuple((size, note) for size, note in map(tuple, checkpoints))
    return Snapshot(tuple(rows(connection)), notes, tuple(blobs), blob, tuple(damage))

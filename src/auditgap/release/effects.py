"""The effect ledger: what a backend really did, in a file that the agent cannot reach.

A transcript says what an agent was told. Whether money moved twice is read here, where the backend writes each effect as it
commits it. Appending is one SQLite transaction, so processes may share a ledger.
"""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from pydantic import Field, JsonValue

from auditgap.records import Record

__all__ = ["Effect", "EffectLedger"]

_TABLE = """CREATE TABLE IF NOT EXISTS effect (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, tool TEXT NOT NULL, key TEXT NOT NULL, tenant TEXT, call_id TEXT,
    undone INTEGER NOT NULL, detail TEXT NOT NULL
)"""


class Effect(Record):
    """One change that a backend made."""

    seq: int = Field(ge=1)
    tool: str
    key: str
    """What makes the effect the same effect: an idempotency or business key. Two effects with one key are a double effect."""
    tenant: str | None = None
    """Whose things were changed."""
    call_id: str | None = None
    undone: bool = False
    """True for the effect that takes back an earlier one with the same key."""
    detail: dict[str, JsonValue] = Field(default_factory=dict)


class EffectLedger:
    """An append-only SQLite file of effects."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with closing(self._connect()) as connection, connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute(_TABLE)

    def add(
        self,
        tool: str,
        key: str,
        *,
        tenant: str | None = None,
        call_id: str | None = None,
        undone: bool = False,
        detail: dict[str, JsonValue] | None = None,
    ) -> None:
        """Write one effect; called by the backend in the moment it commits."""
        with closing(self._connect()) as connection, connection:
            connection.execute(
                "INSERT INTO effect (tool, key, tenant, call_id, undone, detail) VALUES (?, ?, ?, ?, ?, ?)",
                (tool, key, tenant, call_id, int(undone), json.dumps(detail or {})),
            )

    def effects(self) -> tuple[Effect, ...]:
        """Every effect, oldest first."""
        with closing(self._connect()) as connection:
            rows = connection.execute(
                "SELECT seq, tool, key, tenant, call_id, undone, detail FROM effect ORDER BY seq"
            ).fetchall()
        return tuple(
            Effect(seq=seq, tool=tool, key=key, tenant=tenant, call_id=call_id, undone=bool(undone), detail=json.loads(detail))
            for seq, tool, key, tenant, call_id, undone, detail in rows
        )

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=10)
        connection.execute("PRAGMA synchronous=OFF")  # readers see it through the page cache; only a power cut could lose it
        return connection

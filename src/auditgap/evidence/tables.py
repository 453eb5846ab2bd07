"""The database: three tables, how they are opened, and what its errors mean.

SQLite runs in WAL mode with `synchronous=FULL`, so what was committed survives a crash; a writer takes the write lock before it
reads, so two processes never append to the same tree. PostgreSQL takes an advisory lock instead (not tested here).
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    NullPool,
    String,
    Table,
    Text,
    create_engine,
    event,
    inspect,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError, NoSuchModuleError

from auditgap.errors import EvidenceInvalid, StoreError, UsageError

__all__ = [
    "METADATA",
    "REVISIONS",
    "blob",
    "checkpoint",
    "engine_for",
    "explained",
    "folder_url",
    "prepare",
    "reading",
    "statement",
    "writing",
]

METADATA = MetaData()
statement = Table(
    "statement",
    METADATA,
    Column("leaf", Integer, primary_key=True, autoincrement=False),
    Column("digest", String(71), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("subject", String(71), nullable=False),
    Column("step", Text),
    Column("instrument", Text),
    Column("spec", String(71)),
    Column("created_at", String(20)),
    Column("envelope", LargeBinary, nullable=False),
    Index("statement_kind", "kind"),
    Index("statement_spec", "spec"),
)
checkpoint = Table(
    "checkpoint", METADATA, Column("size", Integer, primary_key=True, autoincrement=False), Column("note", Text, nullable=False)
)
blob = Table("blob", METADATA, Column("digest", String(71), primary_key=True), Column("size", Integer, nullable=False))

REVISIONS = ("0001",)
"""Schema revisions that this version knows, oldest first; `migrations/versions` holds one file for each."""
_LOCK = 0x61756469
"""Advisory lock number on PostgreSQL: `audi` in ASCII."""
_MIGRATIONS = Path(__file__).parent / "migrations"


def folder_url(folder: Path) -> URL:
    """The SQLite URL of a store's folder; read-only where nothing may be written there."""
    file = folder / "auditgap.db"
    if not file.exists() or (os.access(folder, os.W_OK) and os.access(file, os.W_OK)):
        return URL.create("sqlite", database=str(file))
    wal = file.with_name("auditgap.db-wal")
    if wal.exists() and wal.stat().st_size:
        raise StoreError(
            f"{folder} is read-only and its last writer did not finish (auditgap.db-wal): copy the folder, open the copy"
        )
    return URL.create("sqlite", database=f"file:{quote(str(file.resolve()))}", query={"immutable": "1", "uri": "true"})


def engine_for(url: str | URL) -> Engine:
    """An engine for a SQLite or PostgreSQL database.

    Raises:
        UsageError: not such a URL, or an in-memory database.
        StoreError: the driver is not installed.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() not in ("sqlite", "postgresql"):
            raise UsageError(f"expected a folder or a sqlite:/// or postgresql:// URL, got {parsed.render_as_string()}")
        if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise UsageError("evidence in memory would be lost: give a folder or sqlite:///FILE")
        engine = create_engine(parsed, poolclass=NullPool)
    except (ArgumentError, NoSuchModuleError) as error:
        raise UsageError(f"expected a folder or a sqlite:/// or postgresql:// URL: {error}") from None
    except ModuleNotFoundError as error:
        raise StoreError(
            f"the driver '{error.name}' for this database is not installed: pip install 'psycopg[binary]'"
        ) from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _connected if "immutable" not in parsed.query else _connected_immutable)
        event.listen(engine, "begin", _begun)
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One transaction that sees the database at one moment, whatever others commit meanwhile."""
    postgresql = engine.dialect.name == "postgresql"
    with (engine.execution_options(isolation_level="REPEATABLE READ") if postgresql else engine).begin() as connection:
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One transaction that holds the write lock from its first statement."""
    with engine.execution_options(writing=True).begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        yield connection


def prepare(engine: Engine, where: str, *, create: bool) -> None:
    """Bring the tables to the newest revision.

    Raises:
        StoreError: there is no store and none may be created, or a newer auditgap wrote it.
    """
    with engine.begin() as connection:
        found = _revision(connection)
    if found == REVISIONS[-1]:
        return
    if found is None and not create:
        raise StoreError(f"no evidence store at {where}: run an audit first, or name the right one with --store")
    if found is not None and found not in REVISIONS:
        raise StoreError(
            f"the store at {where} has schema {found}, auditgap {version('auditgap')} knows up to {REVISIONS[-1]}: "
            "a newer auditgap wrote it; upgrade auditgap"
        )
    with writing(engine) as connection:
        if _revision(connection) != REVISIONS[-1]:
            _upgrade(connection)


@contextmanager
def explained(where: str) -> Iterator[None]:
    """Turn errors of the database and the file system into ours, with the next step."""
    try:
        yield
    except DatabaseError as error:
        said = str(error.orig)
        for words, kind, meaning in _MEANINGS:
            if words in said:
                raise kind(f"{where}: {meaning} ({said})") from error
        raise StoreError(f"{where}: the database refused: {said}") from error
    except OSError as error:
        meaning = _OS_MEANINGS.get(error.errno or 0, error.strerror or str(error))
        raise StoreError(f"{where}: {meaning} ({error})") from error


_MEANINGS: tuple[tuple[str, type[StoreError] | type[EvidenceInvalid], str], ...] = (
    ("file is not a database", EvidenceInvalid, "the database file is damaged; restore it from a copy or a bundle"),
    ("malformed", EvidenceInvalid, "the database file is damaged; restore it from a copy or a bundle"),
    ("no such table", EvidenceInvalid, "a table of the store is gone; restore it from a copy or a bundle"),
    ("no such column", EvidenceInvalid, "a column of the store is gone; restore it from a copy or a bundle"),
    ("disk is full", StoreError, "no space left; nothing was written, free some space and run the same command again"),
    ("readonly database", StoreError, "the store is read-only; make it writable, or copy it and use the copy"),
    ("unable to open database file", StoreError, "the database cannot be opened; check that the folder is readable and writable"),
    (
        "database is locked",
        StoreError,
        "another process held the store for more than 30 s; wait for it and run the same command again",
    ),
)
_OS_MEANINGS = {
    errno.ENOSPC: "no space left; free some and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EROFS: "the file system is read-only; copy the store and use the copy",
    errno.EACCES: "permission denied; make the store readable and writable for this user",
    errno.EPERM: "permission denied; make the store readable and writable for this user",
}


def _connected_immutable(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin below, not at the driver's whim
    connection.text_factory = lambda data: data.decode(errors="replace")  # altered text must be named, not crash the reader


def _connected(connection: sqlite3.Connection, _record: object) -> None:
    _connected_immutable(connection, _record)
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")


def _begun(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writing") else "BEGIN")


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")

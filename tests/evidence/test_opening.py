"""Opening a store: what is missing, read-only, full, damaged, older or newer."""

import errno
import logging
import os
import shutil
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from ledger_examples import registration
from sqlalchemy import event, inspect

import auditgap.evidence.migrations
from auditgap.errors import EvidenceInvalid, StoreError, UsageError
from auditgap.evidence import Store, bundle, tables, verify
from auditgap.evidence.tables import METADATA, REVISIONS


def test_sqlite_survives_a_crash_by_its_settings(tmp_path):
    with Store.open(tmp_path) as store, store._engine.connect() as connection:
        settings = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
    assert settings == ["wal", 2, 30000]


def test_migrations_give_the_tables_that_the_code_uses(tmp_path):
    with Store.open(tmp_path) as store, store._engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, METADATA) == []
        assert context.get_current_revision() == REVISIONS[-1]


def test_every_migration_is_known_in_order():
    config = Config()
    config.set_main_option("script_location", str(Path(auditgap.evidence.migrations.__file__).parent))
    revisions = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    assert tuple(reversed(revisions)) == REVISIONS


def test_opening_says_nothing(tmp_path, capfd, caplog):
    handlers = list(logging.getLogger().handlers)
    with caplog.at_level(logging.WARNING), Store.open(tmp_path) as store:
        store.register(registration())
    verify(tmp_path)
    assert capfd.readouterr() == ("", "")
    assert [(record.name, record.message) for record in caplog.records] == []
    assert logging.getLogger().handlers == handlers


def test_older_store_is_upgraded_and_its_evidence_still_verifies(filled, tmp_path, monkeypatch):
    """With a second revision that does not exist yet."""
    migrations = Path(shutil.copytree(tables._MIGRATIONS, tmp_path / "migrations"))
    (migrations / "versions" / "r0002_next.py").write_text(
        "import sqlalchemy as sa\nfrom alembic import op\n"
        "revision, down_revision, branch_labels, depends_on = '0002', '0001', None, None\n"
        "def upgrade():\n    op.add_column('blob', sa.Column('media_type', sa.Text))\n"
    )
    root = verify(filled).root
    monkeypatch.setattr(tables, "_MIGRATIONS", migrations)
    monkeypatch.setattr(tables, "REVISIONS", ("0001", "0002"))
    with Store.open(filled, create=False) as store, store._engine.connect() as connection:
        assert MigrationContext.configure(connection).get_current_revision() == "0002"
        assert "media_type" in {column["name"] for column in inspect(connection).get_columns("blob")}
    assert (verify(filled).ok, verify(filled).root) == (True, root)


def test_empty_database_file_becomes_a_store(tmp_path):
    (tmp_path / "s").mkdir()
    sqlite3.connect(tmp_path / "s" / "auditgap.db").close()
    with Store.open(tmp_path / "s") as store:
        store.register(registration())
    assert verify(tmp_path / "s").ok


def test_missing_store_is_named(tmp_path):
    for opening in (lambda: Store.open(tmp_path / "none", create=False), lambda: verify(tmp_path / "none")):
        with pytest.raises(StoreError, match=f"no evidence store at {tmp_path}/none"):
            opening()
    assert not (tmp_path / "none").exists()
    with pytest.raises(StoreError, match="no evidence store at sqlite:///"):
        Store.open(f"sqlite:///{tmp_path}/none.db", create=False)
    assert not (tmp_path / "none.db").exists()


def test_newer_store_names_both_versions_and_the_next_step(filled):
    with sqlite3.connect(filled / "auditgap.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0099'")
    connection.close()
    for opening in (Store.open, verify):
        with pytest.raises(StoreError, match=rf"schema 0099, auditgap \S+ knows up to {REVISIONS[-1]}.*upgrade auditgap"):
            opening(filled)


def test_damaged_database_is_no_evidence(filled):
    database = filled / "auditgap.db"
    database.write_bytes(b"not a database at all" * 500)
    with pytest.raises(EvidenceInvalid, match="the database file is damaged"):
        Store.open(filled)
    assert not verify(filled).ok


def test_damaged_page_is_found(filled):
    database = filled / "auditgap.db"
    content = bytearray(database.read_bytes())
    content[8192:12288] = os.urandom(4096)
    database.write_bytes(content)
    verification = verify(filled)
    assert not verification.ok
    with pytest.raises(EvidenceInvalid):
        verification.raise_if_invalid()


def test_missing_table_is_no_evidence(filled):
    with sqlite3.connect(filled / "auditgap.db") as connection:
        connection.execute("DROP TABLE checkpoint")
    connection.close()
    with Store.open(filled) as store, pytest.raises(EvidenceInvalid, match="a table of the store is gone"):
        store.checkpoint()


def test_full_disk_leaves_a_valid_store(filled):
    with Store.open(filled) as store:
        event.listen(store._engine, "connect", lambda connection, _: connection.execute("PRAGMA max_page_count=1"))
        before = len(store)
        with pytest.raises(StoreError, match="no space left; nothing was written"):
            for seed in range(200):
                store.register(registration(seed=seed + 1))
                before += 1
        assert len(store) == before
    assert verify(filled).ok


def test_full_disk_below_blobs_and_bundle(filled, tmp_path, monkeypatch):
    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Store.open(filled) as store:
        monkeypatch.setattr(store.blobs._fs, "pipe_file", full)
        with pytest.raises(StoreError, match="no space left"):
            store.put_blob(b"more")
        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(StoreError, match="no space left"):
            bundle(store, tmp_path / "b.zip")
    assert not list(tmp_path.glob("*.part"))
    assert verify(filled).ok


@pytest.fixture
def read_only(filled, monkeypatch):
    """A store whose folder may not be written; works for root too, whom permissions do not stop."""
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: allowed(path, mode) and not (mode & os.W_OK))
    return filled


def test_read_only_store_is_read_and_verified_but_not_written(read_only):
    before = {path: path.stat().st_mtime_ns for path in read_only.rglob("*")}
    with Store.open(read_only) as store:
        assert len(store.evidence()) == 1
        with pytest.raises(StoreError, match="read-only; make it writable, or copy it"):
            store.register(registration("more"))
    assert verify(read_only).ok
    assert {path: path.stat().st_mtime_ns for path in read_only.rglob("*")} == before


def test_read_only_store_with_an_unfinished_write_asks_for_a_copy(read_only):
    (read_only / "auditgap.db-wal").write_bytes(b"something")
    with pytest.raises(StoreError, match="copy the folder, open the copy"):
        Store.open(read_only)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission_says_so(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StoreError, match="permission denied"):
        Store.open(tmp_path / "s")


def test_folder_below_a_file_says_so(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StoreError, match="is a file, expected the folder"):
        Store.open(tmp_path / "file")
    with pytest.raises(StoreError, match="Not a directory"):
        Store.open(tmp_path / "file" / "s")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("mysql://host/db", "expected a folder or a sqlite:/// or postgresql:// URL"),
        ("sqlite://", "evidence in memory would be lost"),
        ("sqlite:///:memory:", "evidence in memory would be lost"),
        ("nothing://x", "expected a folder or a sqlite:/// or postgresql:// URL"),
    ],
)
def test_url_that_cannot_hold_evidence_is_refused(url, message):
    with pytest.raises(UsageError, match=message):
        Store.open(url)


def test_missing_postgresql_driver_names_the_package_and_no_password():
    with pytest.raises(StoreError, match="psycopg") as raised:
        Store.open("postgresql://me:secret@host/db")
    assert "secret" not in str(raised.value)


def test_path_with_unusual_characters(tmp_path):
    folder = tmp_path / "a b#c?d%20é"
    with Store.open(folder) as store:
        store.register(registration())
    assert verify(folder).ok


def test_store_that_was_moved_still_verifies(filled, tmp_path):
    moved = Path(shutil.move(filled, tmp_path / "elsewhere"))
    with Store.open(moved) as store:
        store.register(registration("more"))
    assert verify(moved).ok

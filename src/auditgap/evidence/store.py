"""The store: signed statements in one database, blobs and keys beside it.

Appending is one transaction: statement, leaf and a new signed checkpoint are there together or not at all, so a process that is
killed at any moment leaves a valid ledger. What is read has had its signature, role and form verified.
"""

import re
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self, TypeVar, cast

from pydantic import JsonValue
from sqlalchemy import ColumnElement, Engine, func, insert, select

from auditgap.errors import RegistrationError, StoreError, UsageError
from auditgap.evidence import tables
from auditgap.evidence.appender import Appender
from auditgap.evidence.blobs import Blobs
from auditgap.evidence.envelope import read_unverified
from auditgap.evidence.keys import KeyRecord, Keyring, Role
from auditgap.evidence.kinds import columns, kind_of, payload
from auditgap.evidence.ledger import Snapshot, Stored, leaf_of, read
from auditgap.evidence.merkle import Frontier, consistency_proof, inclusion_proof, root
from auditgap.evidence.rows import KeyRow, Listed, key_history, last_checkpoint, rows, snapshot
from auditgap.records import Assessment, Calibration, Decision, Digest, Evidence, Record, Registration

__all__ = ["Signed", "Store"]

R = TypeVar("R", bound=Record)
_S = tables.statement.c


class Signed(NamedTuple):
    """A statement as it was signed, to be kept or checked elsewhere."""

    envelope: bytes
    public_key: str
    """The raw ed25519 key in hexadecimal digits."""


class Store:
    """An evidence store; open it with `Store.open`."""

    def __init__(self, engine: Engine, *, folder: Path, where: str, keyring: Keyring, blobs: Blobs) -> None:
        self.folder = folder
        """Where keys, blobs and reports go by default."""
        self.where = where
        self.keyring = keyring
        self.blobs = blobs
        self._engine = engine
        self._tree = Frontier()

    @classmethod
    def open(
        cls, where: str | Path = ".auditgap", *, create: bool = True, keys: str | Path | None = None, blobs: str | None = None
    ) -> Self:
        """Open a folder or a database URL, and bring an older store up to date.

        Args:
            where: a folder, or a `sqlite:///` or `postgresql://` URL.
            create: make the store if there is none.
            keys: folder of the private keys; `keys` in the folder (`./.auditgap/keys` for a URL) if not given.
            blobs: folder or fsspec URL of the blobs; `blobs` in the folder (`./.auditgap/blobs` for a URL) if not given.

        Raises:
            StoreError: there is none, it cannot be read or written, or a newer auditgap wrote it.
            EvidenceInvalid: the database file is damaged.
            UsageError: not a folder or a URL of a supported database.
        """
        is_url = "://" in str(where)
        folder = Path(".auditgap") if is_url else Path(where)
        shown = re.sub("//[^/@]*@", "//***@", str(where))
        with tables.explained(shown):
            if not is_url:
                _check_folder(folder, create=create)
            engine = tables.engine_for(str(where) if is_url else tables.folder_url(folder))
            file = Path(engine.url.database or "")
            if is_url and engine.dialect.name == "sqlite" and not create and not file.exists():
                raise StoreError(f"no evidence store at {shown}: run an audit first, or name the right one with --store")
            tables.prepare(engine, shown, create=create)
        keyring = Keyring(Path(keys) if keys else folder / "keys")
        return cls(engine, folder=folder, where=shown, keyring=keyring, blobs=Blobs(blobs or str(folder / "blobs")))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database; the store can be used again afterwards."""
        self._engine.dispose()

    # -- writing

    def register(self, registration: Registration) -> Digest:
        """Sign what will be measured; the same specification registered before gives that earlier digest.

        Raises:
            StoreError, EvidenceInvalid: the store cannot be written, or its ledger does not hold.
        """
        return self._append(registration, once=True)

    def add_evidence(self, evidence: Evidence) -> Digest:
        """Sign a registered run's result.

        Raises:
            RegistrationError: it was not registered before, or differs from what was.
        """
        return self._append(evidence)

    def add_assessment(self, assessment: Assessment) -> Digest:
        """Sign how far the evidence carries a claim.

        Raises:
            UsageError: it cites evidence that is not in this ledger.
        """
        return self._append(assessment)

    def add_decision(self, decision: Decision) -> Digest:
        """Sign a gate's decision, with the gate key.

        Raises:
            UsageError: it cites assessments or evidence that are not in this ledger.
        """
        return self._append(decision)

    def add_calibration(self, calibration: Calibration) -> Digest:
        """Sign what the evidence in this store says about the power of instruments."""
        return self._append(calibration)

    def add(self, record: Record) -> Digest:
        """Sign a record of any other kind (`KINDS`); one that is there already is not written twice.

        Raises:
            UsageError: it cites statements that are not in this ledger.
        """
        return self._append(record)

    def rotate(self, role: Role) -> Digest:
        """Retire the key of a role; return the fingerprint of the new one. What the old one signed stays valid."""
        with tables.explained(self.where), tables.writing(self._engine) as connection:
            appender = Appender(connection, self.keyring, self._tree)
            fingerprint = appender.rotate(role)
        self._tree = appender.tree
        with tables.explained(self.where), tables.writing(self._engine):
            self.keyring.find(role, fingerprint)  # moves the files, now that the ledger knows the key
        return fingerprint

    def put_blob(self, data: bytes) -> Digest:
        """Keep bytes under their digest."""
        digest = self.blobs.put(data)
        with tables.explained(self.where), tables.writing(self._engine) as connection:
            if connection.execute(select(tables.blob.c.digest).where(tables.blob.c.digest == digest)).first() is None:
                connection.execute(insert(tables.blob).values(digest=digest, size=len(data)))
        return digest

    # -- reading

    def registration(self, digest: Digest) -> Registration:
        """The registration with this digest.

        Raises:
            RegistrationError: there is none.
        """
        found = self._read(Registration, _S.digest == digest, _S.kind == "registration")
        if not found:
            raise RegistrationError(f"no registration {digest} in {self.where}: register the run first")
        return found[0].record

    def find_registration(self, spec: Digest) -> Digest | None:
        """The digest of the earliest registration with this specification."""
        found = self._read(Registration, _S.spec == spec, _S.kind == "registration")
        return found[0].digest if found else None

    def registrations(self) -> list[Stored[Registration]]:
        """Every registration, oldest first."""
        return self._read(Registration, _S.kind == "registration")

    def evidence(self) -> list[Stored[Evidence]]:
        """Every piece of evidence, oldest first."""
        return self._read(Evidence, _S.kind == "evidence")

    def evidence_for(self, spec: Digest) -> list[Stored[Evidence]]:
        """The evidence of one specification: empty until the run has finished, several after independent re-runs."""
        return self._read(Evidence, _S.spec == spec, _S.kind == "evidence")

    def assessments(self) -> list[Stored[Assessment]]:
        """Every assessment, oldest first."""
        return self._read(Assessment, _S.kind == "assessment")

    def decisions(self) -> list[Stored[Decision]]:
        """Every decision, oldest first."""
        return self._read(Decision, _S.kind == "decision")

    def calibrations(self) -> list[Stored[Calibration]]:
        """Every calibration, oldest first."""
        return self._read(Calibration, _S.kind == "calibration")

    def of(self, kind: type[R]) -> list[Stored[R]]:
        """Every statement that holds this type of record, oldest first."""
        return self._read(kind, _S.kind == kind_of(kind))

    def keys(self) -> list[KeyRow]:
        """Every key that the ledger knows, oldest first; empty before the first statement."""
        return KeyRow.listed(self._read(KeyRecord, _S.kind == "key"))

    def get(self, prefix: str) -> Stored[Record]:
        """The statement whose digest begins with `prefix`, with or without `sha256:`.

        Raises:
            UsageError: none or several do.
        """
        digits = prefix.removeprefix("sha256:")
        if not re.fullmatch("[0-9a-f]{1,64}", digits):
            raise UsageError(f"expected the beginning of a statement's digest (1 to 64 hexadecimal digits), got '{prefix}'")
        found = self._read(Record, _S.digest.startswith(f"sha256:{digits}"))
        if len(found) != 1:
            which = ", ".join(s.digest for s in found) or "list them with 'auditgap evidence list'"
            raise UsageError(f"expected one statement that begins with '{prefix}', found {len(found)}: {which}")
        return found[0]

    def statement(self, prefix: str) -> dict[str, JsonValue]:
        """The in-toto statement whose digest begins with `prefix`, as it was signed."""
        digest = self.get(prefix).digest
        with tables.explained(self.where), tables.reading(self._engine) as connection:
            return read_unverified(rows(connection, _S.digest == digest)[0].envelope).statement

    def signed(self, prefix: str) -> Signed:
        """The envelope of the statement whose digest begins with `prefix`, and the key that verifies it."""
        found = self.get(prefix)
        keys = {key.record.keyid: key.record.public_key for key in self._read(KeyRecord, _S.kind == "key")}
        with tables.explained(self.where), tables.reading(self._engine) as connection:
            return Signed(rows(connection, _S.digest == found.digest)[0].envelope, keys[found.keyid])

    def statements(self) -> list[Listed]:
        """Every statement, oldest first."""
        return [Listed(s.leaf, s.digest, *columns(s.record)) for s in self._read(Record)]

    def get_blob(self, digest: Digest) -> bytes:
        """The bytes with this digest.

        Raises:
            StoreError: they are not here.
            EvidenceInvalid: what lies here has another digest.
        """
        return self.blobs.get(digest)

    def __len__(self) -> int:
        with tables.explained(self.where), tables.reading(self._engine) as connection:
            return connection.execute(select(func.count()).select_from(tables.statement)).scalar_one()

    def __bool__(self) -> bool:
        return True

    # -- proofs

    def root(self) -> Digest:
        """The Merkle root over all statements, as `sha256:...`."""
        return f"sha256:{root(self._leaves()).hex()}"

    def checkpoint(self) -> str | None:
        """The last signed checkpoint, to be kept somewhere else; None for an empty ledger."""
        with tables.explained(self.where), tables.reading(self._engine) as connection:
            return last_checkpoint(connection)

    def inclusion_proof(self, leaf: int) -> list[bytes]:
        """The hashes that lead from a leaf to the root; check them with `verify_inclusion`."""
        return inclusion_proof(leaf, self._leaves())

    def consistency_proof(self, old_size: int) -> list[bytes]:
        """The hashes which show that the first `old_size` statements were only appended to; check with `verify_consistency`."""
        return consistency_proof(old_size, self._leaves())

    def snapshot(self) -> Snapshot:
        """Everything that verification looks at, unverified, from one read transaction."""
        with tables.explained(self.where), tables.reading(self._engine) as connection:
            return snapshot(connection, self.blobs.get)

    def _leaves(self) -> list[bytes]:
        with tables.explained(self.where), tables.reading(self._engine) as connection:
            return [leaf_of(digest) for digest in connection.execute(select(_S.digest).order_by(_S.leaf)).scalars()]

    def _append(self, record: Record, *, once: bool = False) -> Digest:
        try:
            payload(record)
        except ValueError as error:
            kind = type(record).__name__
            raise UsageError(
                f"this {kind} cannot be signed: RFC 8785 cannot print it ({error}); keep integers below 2**53"
            ) from None
        with tables.explained(self.where), tables.writing(self._engine) as connection:
            appender = Appender(connection, self.keyring, self._tree)
            if once and isinstance(record, Registration):
                earlier = rows(connection, _S.spec == record.spec(), _S.kind == "registration")
                if earlier:
                    return read(earlier[0], appender.keys).digest
            digest = appender.append(record)
        self._tree = appender.tree
        return digest

    def _read(self, kind: type[R], *conditions: ColumnElement[bool]) -> list[Stored[R]]:
        """The statements that meet the conditions, each verified; one that is not of this kind is refused."""
        with tables.explained(self.where), tables.reading(self._engine) as connection:
            history = key_history(connection)
            found = [read(row, history) for row in rows(connection, *conditions)]
        return cast("list[Stored[R]]", found)  # `read` compared the kind column with the payload


def _check_folder(folder: Path, *, create: bool) -> None:
    if folder.is_file():
        raise StoreError(
            f"{folder} is a file, expected the folder of a store; a bundle is read with 'auditgap evidence verify {folder}'"
        )
    if not create and not (folder / "auditgap.db").exists():
        raise StoreError(f"no evidence store at {folder}: run an audit first, or name the right one with --store")
    folder.mkdir(parents=True, exist_ok=True)

"""Who signs: one ed25519 key per role, in files that only their owner can read.

The evaluation key signs what was planned, measured and assessed, and the ledger's checkpoints; the gate key signs decisions. They
are never the same key. Private keys are PKCS#8 PEM files of mode 0600, made on first use; public keys are ledger statements.

Files: `<role>.pem` is current. A rotation stages `<role>.next.pem`, commits its key statement, then moves the old file to
`<role>.retired-<id>.pem`. A key is always found by its id, so a crash between those steps loses nothing.
"""

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from pydantic import StringConstraints

from auditgap.errors import StoreError
from auditgap.records import Digest, Record, UtcTime, digest_of

__all__ = ["ROLES", "KeyRecord", "Keyring", "Role", "fingerprint", "load_private_key"]

Role = Literal["evaluation", "gate"]
ROLES: tuple[Role, ...] = ("evaluation", "gate")


class KeyRecord(Record):
    """From this leaf on, this key signs for this role, and the one it replaces no longer does."""

    schema_version: Literal["auditgap.dev/key/v1"] = "auditgap.dev/key/v1"
    role: Role
    public_key: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    """The raw ed25519 key in hexadecimal."""
    replaces: Digest | None
    """Fingerprint of the key of this role that is retired now; None for the first, which signs itself."""
    created_at: UtcTime

    @property
    def keyid(self) -> Digest:
        """The fingerprint: digest of the 32 raw bytes."""
        return digest_of(self.raw)

    @property
    def raw(self) -> bytes:
        """The 32 bytes of the public key."""
        return bytes.fromhex(self.public_key)


def fingerprint(key: Ed25519PrivateKey) -> Digest:
    """What two people compare to know that they mean the same key: the digest of its raw public half."""
    return digest_of(key.public_key().public_bytes_raw())


class Keyring:
    """The private keys in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def first(self, role: Role) -> Ed25519PrivateKey:
        """The current key of a role; made now if there is none.

        Raises:
            StoreError: the file is readable by others, damaged, or cannot be written.
        """
        path = self._path(role)
        if not path.exists():
            self._create(path)
        return load_private_key(path)

    def find(self, role: Role, keyid: Digest) -> Ed25519PrivateKey:
        """The key with this fingerprint, and finish a rotation that was cut off after its commit.

        Raises:
            StoreError: this folder does not hold it.
        """
        for path in sorted(self.folder.glob(f"{role}*.pem")):
            key = load_private_key(path)
            if fingerprint(key) == keyid:
                if path == self._path(role, "next"):
                    self._promote(role)
                return key
        raise StoreError(
            f"the ledger expects {role} key {keyid}, which is not in {self.folder}: "
            "put its file back there, or begin a new store; a lost key cannot be rotated"
        )

    def stage(self, role: Role) -> Ed25519PrivateKey:
        """A fresh key that becomes current once its statement is in the ledger and `find` asks for it."""
        path = self._path(role, "next")
        path.unlink(missing_ok=True)
        self._create(path)
        return load_private_key(path)

    def show(self) -> dict[Role, Digest]:
        """The fingerprint of the current key of each role that has one here."""
        return {role: fingerprint(load_private_key(self._path(role))) for role in ROLES if self._path(role).exists()}

    def _path(self, role: Role, state: str = "") -> Path:
        return self.folder / (f"{role}.{state}.pem" if state else f"{role}.pem")

    def _promote(self, role: Role) -> None:
        path = self._path(role)
        if path.exists():
            path.rename(self._path(role, f"retired-{fingerprint(load_private_key(path)).removeprefix('sha256:')[:16]}"))
        self._path(role, "next").rename(path)

    def _create(self, path: Path) -> None:
        """Write a new key so that the file is either whole or absent, and never another process's."""
        pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.folder / ".gitignore").write_text("*\n", encoding="ascii")
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            os.link(part, path)
        except FileExistsError:
            pass  # another process made it first: its key is the one
        except OSError as error:
            raise StoreError(
                f"cannot write a new key to {path}: {error.strerror or error}; make {self.folder} writable"
            ) from error
        finally:
            with suppress(OSError):
                part.unlink()


def load_private_key(path: Path) -> Ed25519PrivateKey:
    """The key in an unencrypted PEM file that only its owner may read.

    Raises:
        StoreError: others may read it, or it is no such key.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        if os.name == "posix" and mode & 0o077:
            raise StoreError(f"private key {path} can be read by others (mode {mode:04o}); run: chmod 600 {path}")
        key = load_pem_private_key(path.read_bytes(), password=None)
    except OSError as error:
        raise StoreError(f"cannot read private key {path}: {error.strerror or error}") from error
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise StoreError(f"{path} is not an unencrypted PKCS#8 PEM key: {error}; restore it from a copy") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise StoreError(f"expected an ed25519 key in {path}, got {type(key).__name__}")
    return key

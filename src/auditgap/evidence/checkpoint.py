"""A signed checkpoint: the size and root of the ledger in four lines that fit on paper.

    auditgap.dev/ledger/<first 32 digits of the first statement's digest>
    <number of statements>
    <base64 of the root>

    — <origin again> <base64 of a 4-byte key hash and the ed25519 signature>

The signature covers the first three lines with their newlines. Format: C2SP tlog-checkpoint in a C2SP signed-note.
Whoever keeps one outside can later see that nothing was taken away or changed before it.
"""

import base64
import hashlib
import re
from typing import NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from auditgap.errors import EvidenceInvalid

__all__ = ["Checkpoint", "open_checkpoint", "parse_checkpoint", "sign_checkpoint"]

_NOTE = re.compile(
    r"(?P<text>(?P<origin>[^\s+]+)\n(?P<size>0|[1-9][0-9]{0,17})\n(?P<root>[A-Za-z0-9+/]{43}=)\n)\n"
    r"— (?P<name>[^\s+]+) (?P<signature>[A-Za-z0-9+/]{91}=)\n"
)


class Checkpoint(NamedTuple):
    """What a ledger was at one moment."""

    origin: str
    """Which ledger."""
    size: int
    """Statements in it."""
    root: bytes
    """Merkle root over them."""

    def text(self) -> str:
        """The three lines that are signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def sign_checkpoint(checkpoint: Checkpoint, key: Ed25519PrivateKey) -> str:
    """The signed note."""
    text = checkpoint.text()
    signature = _key_hash(checkpoint.origin, key.public_key().public_bytes_raw()) + key.sign(text.encode())
    return f"{text}\n— {checkpoint.origin} {base64.b64encode(signature).decode()}\n"


def parse_checkpoint(note: str) -> Checkpoint:
    """Read a note without believing it.

    Raises:
        EvidenceInvalid: it does not have the form above.
    """
    return _parse(note)[0]


def open_checkpoint(note: str, public_key: bytes) -> Checkpoint:
    """Read a note and check its signature by this raw ed25519 key.

    Raises:
        EvidenceInvalid: the form is wrong, another key signed it, or the signature does not hold.
    """
    checkpoint, text, name, signature = _parse(note)
    if name != checkpoint.origin or signature[:4] != _key_hash(name, public_key):
        raise EvidenceInvalid(f"the checkpoint of size {checkpoint.size} is not signed by the evaluation key of that time")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature[4:], text)
    except (InvalidSignature, ValueError):
        raise EvidenceInvalid(f"the signature of the checkpoint of size {checkpoint.size} does not hold") from None
    return checkpoint


def _parse(note: str) -> tuple[Checkpoint, bytes, str, bytes]:
    """The checkpoint, the bytes that were signed, the key name, and key hash with signature."""
    found = _NOTE.fullmatch(note)
    if found is None:
        raise EvidenceInvalid(f"expected a signed checkpoint (origin, size, root, blank line, signature), got {note[:80]!r}")
    signature = base64.b64decode(found["signature"])
    if base64.b64encode(signature).decode() != found["signature"]:
        raise EvidenceInvalid(f"the signature of the checkpoint of size {found['size']} is not canonical base64")
    checkpoint = Checkpoint(found["origin"], int(found["size"]), base64.b64decode(found["root"]))
    return checkpoint, found["text"].encode(), found["name"], signature


def _key_hash(name: str, public_key: bytes) -> bytes:
    """C2SP signed-note key id for ed25519 (type 0x01): a hint, never a proof."""
    return hashlib.sha256(name.encode() + b"\n\x01" + public_key).digest()[:4]

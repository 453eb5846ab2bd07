"""Signed bytes: an in-toto Statement v1 in a DSSE envelope, one ed25519 signature.

1. A record becomes RFC 8785 bytes of a Statement whose predicate it is.
2. The signature covers `DSSEv1 <len> <payload type> <len> <payload>`, so neither can be swapped without the other.
3. The envelope's bytes are kept. Verifying reads those bytes; nothing is ever serialised again to check a signature.

Sources: in-toto attestation spec v1, secure-systems-lab/dsse protocol.
"""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import JsonValue
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import CryptoSigner, Key, SSlibKey  # pyright: ignore[reportPrivateImportUsage]

from auditgap.errors import EvidenceInvalid
from auditgap.records import Digest, Record, canonical_json, digest_of

__all__ = ["PAYLOAD_TYPE", "STATEMENT_TYPE", "Opened", "open_envelope", "public_key", "read_unverified", "sign", "statement"]

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"


class Opened(NamedTuple):
    """A statement taken out of its envelope."""

    statement: dict[str, JsonValue]
    keyid: Digest
    payload: bytes
    """The bytes that were signed."""


def statement(record: Record, *, subject_name: str, subject_digest: Digest, predicate_type: str) -> bytes:
    """The canonical bytes of a Statement that says `record` of one subject."""
    predicate = json.loads(record.canonical())
    subject = [{"name": subject_name, "digest": {"sha256": subject_digest.removeprefix("sha256:")}}]
    return canonical_json(
        {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": predicate_type, "predicate": predicate},
    )


def public_key(raw: bytes) -> SSlibKey:
    """A raw ed25519 key as a verifier; its id is the digest of those 32 bytes."""
    return SSlibKey(digest_of(raw), "ed25519", "ed25519", {"public": raw.hex()})


def sign(payload: bytes, key: Ed25519PrivateKey) -> bytes:
    """The envelope's bytes: the same payload and key always give the same bytes."""
    envelope = Envelope(payload=payload, payload_type=PAYLOAD_TYPE, signatures={})
    envelope.sign(CryptoSigner(key, public_key(key.public_key().public_bytes_raw())))
    return canonical_json(envelope.to_dict())


def open_envelope(data: bytes, trusted: Sequence[Key]) -> Opened:
    """Verify an envelope's bytes against the keys trusted here, then read its statement.

    Raises:
        EvidenceInvalid: the form is wrong, no trusted key signed it, or the payload is no Statement v1.
    """
    envelope = _parse(data)
    (keyid,) = envelope.signatures
    if keyid not in {key.keyid for key in trusted}:
        active = ", ".join(key.keyid for key in trusted) or "none"
        raise EvidenceInvalid(f"expected a signature by a key active here ({active}), got one by {keyid}")
    try:
        envelope.verify(list(trusted), 1)
    except (SigningError, ValueError) as error:
        raise EvidenceInvalid(f"the signature by {keyid} does not hold: {error}") from None
    return _opened(envelope)


def read_unverified(data: bytes) -> Opened:
    """The statement before any signature was checked: only to learn which key a first key statement claims.

    Raises:
        EvidenceInvalid: the form of envelope or statement is wrong.
    """
    return _opened(_parse(data))


def _opened(envelope: Envelope) -> Opened:
    document = _json(envelope.payload, "the payload")
    if not isinstance(document, dict) or document.get("_type") != STATEMENT_TYPE:
        raise EvidenceInvalid(f"expected an in-toto {STATEMENT_TYPE}, got {envelope.payload[:60]!r}")
    (keyid,) = envelope.signatures
    return Opened(document, keyid, envelope.payload)


def _parse(data: bytes) -> Envelope:
    """A well-formed envelope: the expected payload type, exactly one signature, no second value for a name."""
    document = _json(data, "the envelope")
    try:
        envelope = Envelope.from_dict(document)
    except (SigningError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise EvidenceInvalid(f"expected a DSSE envelope, got {data[:60]!r} ({type(error).__name__}: {error})") from None
    if envelope.payload_type != PAYLOAD_TYPE:
        raise EvidenceInvalid(f"expected payload type {PAYLOAD_TYPE}, got {envelope.payload_type!r}")
    if len(envelope.signatures) != 1:
        raise EvidenceInvalid(f"expected exactly one signature, got {len(envelope.signatures)}")
    return envelope


def _json(data: bytes, what: str) -> Any:
    """Parse JSON and refuse repeated names, on which parsers disagree."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            raise EvidenceInvalid(f"{what} repeats a name: {sorted(name for name, _ in pairs)}")
        return document

    try:
        return json.loads(data, object_pairs_hook=unique)
    except (ValueError, RecursionError):
        raise EvidenceInvalid(f"{what} is not JSON: {data[:60]!r}") from None

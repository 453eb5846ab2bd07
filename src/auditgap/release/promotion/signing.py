"""Promotion keys: signing by one or more people, and verifying that enough of them signed.

The envelope is that of the evidence store (in-toto Statement v1 in DSSE, ed25519), with one signature per person. Bytes that are
not the canonical form of what they say are refused, so no two readers can see two things.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import CryptoSigner, SSlibKey  # pyright: ignore[reportPrivateImportUsage]

from auditgap.errors import EvidenceInvalid, PlanError, UsageError
from auditgap.evidence.envelope import PAYLOAD_TYPE, public_key, statement
from auditgap.evidence.keys import load_private_key
from auditgap.records import Digest, Record, canonical_json, digest_of
from auditgap.records.integrity import IntegrityRun
from auditgap.records.parity import Parity
from auditgap.records.promotion import Promotion, PromotionRegistration, ReleaseCheck

__all__ = [
    "Verified",
    "cosign",
    "load_private_key",
    "load_public_key",
    "open_signed",
    "parse_unsigned",
    "public_half",
    "sign_payload",
    "sign_record",
]

R = TypeVar("R", bound=Record)

_BASE = "https://auditgap.dev/"
_KINDS: dict[type[Record], tuple[str, Callable[[Any], Digest]]] = {
    Promotion: ("promotion", lambda promotion: promotion.manifest),
    PromotionRegistration: ("promotion-registration", lambda registration: registration.policy),
    IntegrityRun: ("integrity-run", lambda run: run.manifest or run.suite),
    Parity: ("parity", lambda parity: parity.after),
    ReleaseCheck: ("release-check", lambda check: check.manifest),
}
"""What a statement of each record is called, and what it is about."""


class Verified(NamedTuple):
    """Who signed."""

    keyids: tuple[Digest, ...]
    digest: Digest
    """Of the envelope's bytes."""


def load_public_key(path: Path) -> SSlibKey:
    """An ed25519 public key from a PEM file, as `openssl pkey -pubout` writes it.

    Raises:
        UsageError: there is none in the file.
    """
    try:
        key = load_pem_public_key(path.read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read public key {path}: {error.strerror or error}") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path}: expected a public key in PEM form, got: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UsageError(f"{path}: expected an ed25519 public key, got {type(key).__name__}")
    return public_key(key.public_bytes_raw())


def public_half(key: Ed25519PrivateKey) -> SSlibKey:
    """What others verify this key's signatures with."""
    return public_key(key.public_key().public_bytes_raw())


def sign_record(record: Record, keys: Sequence[Ed25519PrivateKey]) -> bytes:
    """The envelope of the statement that says `record`, signed by each key."""
    return sign_payload(_payload(record), keys)


def sign_payload(payload: bytes, keys: Sequence[Ed25519PrivateKey]) -> bytes:
    """The envelope of a finished statement, signed by each key."""
    return _signed(Envelope(payload=payload, payload_type=PAYLOAD_TYPE, signatures={}), keys)


def cosign(data: bytes, key: Ed25519PrivateKey, *, payload: bytes | None = None) -> bytes:
    """The same envelope with one more person's signature; with `payload`, only if that is what it holds.

    Raises:
        EvidenceInvalid: it is no envelope, or holds something else.
        UsageError: this key has signed it already.
    """
    envelope = _parse(data)
    if payload not in (None, envelope.payload):
        raise EvidenceInvalid("the envelope holds another statement than the one that is to be signed")
    if public_half(key).keyid in envelope.signatures:
        raise UsageError("this key has signed already: the second signature must be another person's")
    return _signed(envelope, [key])


def open_signed(data: bytes, *records: type[R], trusted: Sequence[SSlibKey], threshold: int) -> tuple[R, Verified]:
    """The record, of one of these kinds, in an envelope that at least `threshold` different trusted keys have signed.

    Raises:
        EvidenceInvalid: the form is wrong, too few of the keys signed, or a signature does not hold.
    """
    envelope, distinct = _parse(data), {key.keyid: key for key in trusted}
    known = [keyid for keyid in envelope.signatures if keyid in distinct]
    if len(known) < threshold:
        raise EvidenceInvalid(f"expected signatures by {threshold} of the {len(distinct)} trusted keys, got {len(known)}")
    try:
        accepted = envelope.verify([distinct[keyid] for keyid in known], threshold)
    except (SigningError, ValueError) as error:
        raise EvidenceInvalid(f"the signatures do not hold: {error}") from None
    return _record(envelope.payload, records), Verified(tuple(accepted), digest_of(data))


def parse_unsigned(document: object, *records: type[R], where: str) -> R:
    """The record, of one of these kinds, that `--json` printed: nobody vouches for it.

    Raises:
        PlanError: it is none of them, or malformed.
    """
    fields = document if isinstance(document, dict) else {}
    version = fields.get("schema_version")
    record = {record.model_fields["schema_version"].default: record for record in records}.get(str(version))
    if record is None:
        names = " or ".join(_KINDS[record][0].replace("-", " ") for record in records)
        raise PlanError(f"{where}: expected a record of kind {names}, got schema_version {version!r}; give what --json printed")
    return record.parse({k: v for k, v in fields.items() if not (record is Parity and k == "changes")}, where=where)


def _payload(record: Record) -> bytes:
    kind, subject = next((kind, subject(record)) for type_, (kind, subject) in _KINDS.items() if isinstance(record, type_))
    return statement(record, subject_name="release", subject_digest=subject, predicate_type=f"{_BASE}{kind}/v1")


def _record(payload: bytes, records: Sequence[type[R]]) -> R:
    expected = {f"{_BASE}{_KINDS[record][0]}/v1": record for record in records}
    try:
        document = json.loads(payload)
        if (named := document["predicateType"]) not in expected:
            raise EvidenceInvalid(f"expected a statement of type {' or '.join(expected)}, got {named!r}")
        found = expected[named].model_validate_json(json.dumps(document["predicate"]))
        again = _payload(found)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise EvidenceInvalid(f"the statement is not what it says: {str(error)[:300]}") from None
    if again != payload:
        raise EvidenceInvalid(f"the payload is not the canonical form of its record ({named})")
    return found


def _parse(data: bytes) -> Envelope:
    try:
        document = json.loads(data)
        if canonical_json(document) != data.rstrip(b"\n"):
            raise EvidenceInvalid("the envelope's bytes are not in canonical form; keep the file as it was written")
        envelope = Envelope.from_dict(document)
    except (SigningError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise EvidenceInvalid(f"expected a DSSE envelope, got {data[:60]!r} ({type(error).__name__})") from None
    if envelope.payload_type != PAYLOAD_TYPE:
        raise EvidenceInvalid(f"expected payload type {PAYLOAD_TYPE}, got {envelope.payload_type!r}")
    return envelope


def _signed(envelope: Envelope, keys: Sequence[Ed25519PrivateKey]) -> bytes:
    for key in keys:
        envelope.sign(CryptoSigner(key, public_half(key)))
    return canonical_json(envelope.to_dict())

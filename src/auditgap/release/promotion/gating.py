"""`auditgap release gate` from files to files: read, verify, decide, sign, write."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from auditgap.errors import UsageError
from auditgap.records import Digest, digest_of, now
from auditgap.records.integrity import IntegrityRun
from auditgap.records.parity import Parity
from auditgap.records.promotion import Promotion, PromotionRegistration, ReleaseCheck
from auditgap.release.capture import read_manifest
from auditgap.release.capture.files import parse_json, read_bytes, text_of
from auditgap.release.promotion.deciding import Registered, exit_code, promote, register
from auditgap.release.promotion.outputs import VSA_FILE, vsa_of, write_outputs
from auditgap.release.promotion.pieces import Pieces, gather
from auditgap.release.promotion.policy import load_promotion_policy
from auditgap.release.promotion.provenance import provenance_of
from auditgap.release.promotion.signing import (
    cosign,
    load_private_key,
    load_public_key,
    open_signed,
    parse_unsigned,
    public_half,
    sign_record,
)

__all__ = ["Brought", "Gated", "attest_file", "cosign_file", "gate_release", "register_policy"]


class Brought(NamedTuple):
    """The files that a promotion is decided on."""

    manifest: Path
    """As declared."""
    observed: Path | None = None
    """As seen on a canary run."""
    registration: Path | None = None
    store: Path | None = None
    """With the decision on the model."""
    evidence: tuple[Path, ...] = ()
    """Signed integrity runs, parity records and checks."""
    evaluation_keys: tuple[Path, ...] = ()
    """Public keys that may have signed `evidence`."""
    lock: Path | None = None
    sbom: Path | None = None
    build: Path | None = None
    build_key: Path | None = None


class Gated(NamedTuple):
    """What the gate decided, and where it is written."""

    promotion: Promotion
    files: tuple[Path, ...]

    @property
    def exit_code(self) -> int:
        """0 pass, 1 blocked by something measured, 3 by what is missing or inconclusive."""
        return exit_code(self.promotion)


def register_policy(policy: Path, key: Path, out: Path) -> PromotionRegistration:
    """Sign the digests of a policy and its case set, to be kept until the gate; `out` is not overwritten.

    Raises:
        PlanError: the policy is malformed.
        UsageError: there is a registration in `out` already.
    """
    registration = register(load_promotion_policy(policy), now=now())
    try:
        with out.open("xb") as file:
            file.write(sign_record(registration, [load_private_key(key)]))
    except FileExistsError:
        raise UsageError(
            f"{out} is there already; an earlier registration is worth more, so keep it or name another file"
        ) from None
    return registration


def attest_file(path: Path, key: Path, out: Path) -> Digest:
    """Sign an integrity run, a parity record or a release check, as `--json` printed it, with an evaluation key.

    Raises:
        PlanError: the file holds none of them.
    """
    document = parse_json(text_of(read_bytes(path), path), where=str(path))
    record = parse_unsigned(document, IntegrityRun, Parity, ReleaseCheck, where=str(path))
    envelope = sign_record(record, [load_private_key(key)])
    out.write_bytes(envelope)
    return digest_of(envelope)


def gate_release(
    policy: Path,
    brought: Brought,
    *,
    keys: Sequence[Path],
    promoters: Sequence[Path] = (),
    out: Path,
    from_stage: str | None = None,
    to_stage: str | None = None,
) -> Gated:
    """Decide whether a release may move, sign the decision with every key of `keys`, and write it in every format.

    `promoters` are the public keys of others who may promote: one of them may have signed the registration.

    Raises:
        PlanError, DataError: a file is malformed.
        UsageError: a promotion key is also one that evaluated.
        EvidenceInvalid: a signature on the registration or on evidence does not hold.
    """
    rules = load_promotion_policy(policy, from_stage=from_stage, to_stage=to_stage)
    signers = [load_private_key(path) for path in keys]
    trusted = [load_public_key(path) for path in brought.evaluation_keys]
    pieces = gather(brought.store, brought.evidence, trusted=trusted)
    _separate(signers, pieces)
    owners = [*(public_half(key) for key in signers), *(load_public_key(path) for path in promoters)]
    registered = None
    if brought.registration:
        record, verified = open_signed(read_bytes(brought.registration), PromotionRegistration, trusted=owners, threshold=1)
        registered = Registered(verified.digest, record)
    manifest = read_manifest(brought.manifest)
    promotion = promote(
        rules,
        manifest,
        pieces.found,
        observed=read_manifest(brought.observed) if brought.observed else None,
        registered=registered,
        provenance=provenance_of(
            manifest, lock=brought.lock, sbom=brought.sbom, build=brought.build, build_key=brought.build_key
        ),
        now=now(),
    )
    return Gated(promotion, write_outputs(out, promotion, brought.manifest, pieces.root or "no store", signers))


def cosign_file(path: Path, key: Path, *, first: Path) -> Promotion:
    """Add a second person's signature to a promotion that the key `first` (public) has signed, and to the VSA beside it.

    Raises:
        EvidenceInvalid: `first` has not signed these bytes, or the VSA is another promotion's.
        UsageError: the key has signed already.
    """
    data, private = read_bytes(path), load_private_key(key)
    promotion, _ = open_signed(data, Promotion, trusted=[load_public_key(first)], threshold=1)
    both = [(path, cosign(data, private))]
    if (summary := path.with_name(VSA_FILE)).exists():
        both.append((summary, cosign(read_bytes(summary), private, payload=vsa_of(promotion))))
    for file, signed in both:
        file.write_bytes(signed)
    return promotion


def _separate(signers: Sequence[Ed25519PrivateKey], pieces: Pieces) -> None:
    if not signers:
        raise UsageError("expected a promotion key, got none; give --key")
    for key in signers:
        if (keyid := public_half(key).keyid) in pieces.evaluators:
            raise UsageError(
                f"key {keyid[:19]} also signs evaluations or audits' decisions; who evaluates does not promote: make another key"
            )

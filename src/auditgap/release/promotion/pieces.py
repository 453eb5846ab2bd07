"""The evidence that a promotion rests on, with who signed it: from a store, and from signed files that other jobs leave.

Every piece is verified before it is read: in a store by the ledger's own rules, in a file by the evaluation keys given.
"""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from securesystemslib.signer import SSlibKey  # pyright: ignore[reportPrivateImportUsage]

from auditgap.errors import EvidenceInvalid, UsageError
from auditgap.evidence import Store
from auditgap.evidence.kinds import KINDS
from auditgap.records import Decision, Digest, Evidence, Record, Registration, Subject
from auditgap.records.integrity import IntegrityRun
from auditgap.records.manifest import ReleaseManifest
from auditgap.records.parity import Parity
from auditgap.records.promotion import ReleaseCheck
from auditgap.release.promotion.signing import open_signed

__all__ = ["Evaluation", "Piece", "Pieces", "describes", "gather", "made_at"]

_NAMED = (Decision, IntegrityRun, Parity, ReleaseCheck)


class Evaluation(NamedTuple):
    """What a decision of the audit's gate was made on."""

    subject: Subject
    releases: frozenset[Digest]
    """Fingerprints that the registrations of its evidence name."""


class Piece(NamedTuple):
    """One signed record."""

    digest: Digest
    record: Decision | IntegrityRun | Parity | ReleaseCheck
    keyid: Digest
    evaluation: Evaluation | None = None
    """For a decision."""


class Pieces(NamedTuple):
    """Everything that was brought, and every key that signed any of it."""

    found: tuple[Piece, ...]
    evaluators: frozenset[Digest]
    root: Digest | None
    """Merkle root of the store."""


def gather(store: str | Path | None = None, files: Sequence[Path] = (), *, trusted: Sequence[SSlibKey] = ()) -> Pieces:
    """Read and verify all pieces.

    Raises:
        UsageError: files are given without a key to verify them with, or one cannot be read.
        StoreError: the store cannot be read.
        EvidenceInvalid: a signature does not hold.
    """
    if files and not trusted:
        raise UsageError("expected the public key that signed the evidence files, got none; give --evaluation-key")
    found = [_from_file(path, trusted) for path in files]
    if store is None:
        return Pieces(tuple(found), frozenset(piece.keyid for piece in found), None)
    with Store.open(store, create=False) as opened:
        found += _from_store(opened)
        history = opened.keys()
        signers = {key.fingerprint for key in history} | {piece.keyid for piece in found}
        return Pieces(tuple(found), frozenset(signers), opened.root())


def made_at(record: Decision | IntegrityRun | Parity | ReleaseCheck) -> dt.datetime:
    """When the record was made, as it says itself."""
    match record:
        case Decision() as decision:
            return decision.decided_at
        case Parity() as parity:
            return dt.datetime.combine(parity.judged_on, dt.time(), dt.UTC)
        case IntegrityRun() | ReleaseCheck() as run:
            return run.finished_at


def describes(piece: Piece, manifest: ReleaseManifest, releases: frozenset[Digest]) -> str | None:
    """None if the piece is about this release; otherwise what it is about.

    A decision on a model is about a release whose manifest holds exactly the weight files of model and adapter, or that the
    registrations of all its evidence name.
    """
    match piece.record:
        case IntegrityRun(manifest=about) | ReleaseCheck(manifest=about) | Parity(after=about):
            return None if about in releases else f"release {about[:19]}" if about else "no release that it names"
        case Decision():
            evaluation = piece.evaluation
            if evaluation is None:
                return "a model of which the store holds no evidence"
            loaded = (*manifest.of("weights"), *manifest.of("adapter"))
            shipped = {digest for component in loaded for digest in _weight_files(component.content)}
            files = (*evaluation.subject.weights, *evaluation.subject.adapter)
            measured = {file.content for file in files if file.path.endswith(".safetensors")}
            if (shipped and shipped == measured) or (evaluation.releases and evaluation.releases <= releases):
                return None
            return f"model {evaluation.subject.digest()[:19]}, whose weights the manifest does not hold"


def _weight_files(content: object) -> set[Digest]:
    files = content if isinstance(content, dict) else {}
    return {str(file["content"]) for path, file in files.items() if path.endswith(".safetensors") and isinstance(file, dict)}


def _from_file(path: Path, trusted: Sequence[SSlibKey]) -> Piece:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read evidence {path}: {error.strerror or error}") from None
    try:
        record, verified = open_signed(data, IntegrityRun, Parity, ReleaseCheck, trusted=trusted, threshold=1)
    except EvidenceInvalid as error:
        raise EvidenceInvalid(f"{path}: {error}") from None
    return Piece(verified.digest, record, verified.keyids[0])


def _from_store(store: Store) -> list[Piece]:
    evidence = {stored.digest: stored.record for stored in store.evidence()}
    registrations = {stored.digest: stored.record for stored in store.registrations()}
    found = []
    for kind in (kind for kind in _NAMED if kind in KINDS.values()):
        for stored in store.of(kind):
            evaluation = _evaluation(stored.record, evidence, registrations)
            found.append(Piece(stored.digest, stored.record, stored.keyid, evaluation))
    return found


def _evaluation(record: Record, evidence: dict[Digest, Evidence], registrations: dict[Digest, Registration]) -> Evaluation | None:
    if not isinstance(record, Decision):
        return None
    cited = [evidence[c.evidence] for c in record.criteria if c.evidence in evidence]
    subject = next((e.subject for e in evidence.values() if e.subject.digest() == record.subject), None)
    if subject is None:
        return None
    named = [registrations[e.registration].references.get("release") for e in cited]
    return Evaluation(subject, frozenset(name for name in named if name) if all(named) else frozenset())

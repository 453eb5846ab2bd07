"""Verify a store or a bundle, offline, with nothing but its bytes.

1. The container is whole: SQLite's own integrity check, or every member of the zip as its manifest lists it.
2. Leaves are numbered 0, 1, 2, ... without a gap.
3. Each envelope's bytes have the recorded digest.
4. Its signature is by the key that is active for its role at that leaf. Keys come from the ledger itself: the first of a role
   signs itself, a later one is signed by the key that it retires.
5. Its payload is a Statement v1 whose predicate is the record that its type says, in canonical form.
6. Every database column says what the signed payload says.
7. What a statement cites is an earlier statement of the right kind; evidence has the step, subject, instrument, version and
   specification of its registration, and began after it.
8. Every checkpoint is signed by the evaluation key of its time and has the root of its prefix; the last covers all statements.
9. A checkpoint that was kept elsewhere, if given, agrees: nothing before it was changed or taken away.
10. Every blob is there and has its digest.
11. The fingerprints of trusted keys, if given, begin the chains of keys that are used.

What this cannot show is in docs/evidence.md: without 9, a ledger cut at its end; without 11, a ledger made up from the start.
"""

from collections.abc import Sequence
from pathlib import Path

from auditgap.errors import EvidenceInvalid, UsageError
from auditgap.evidence.bundle import read_bundle
from auditgap.evidence.check import Problem, Verification, check
from auditgap.evidence.ledger import Snapshot
from auditgap.evidence.merkle import EMPTY_ROOT
from auditgap.evidence.store import Store

__all__ = ["verify"]


def verify(where: str | Path, *, trusted: str | Sequence[str] | None = None, known_checkpoint: str | None = None) -> Verification:
    """Everything that does not hold in a store (folder or URL) or a bundle (zip file); `ok` if there is nothing.

    Args:
        where: a store's folder or URL, or a bundle.
        trusted: fingerprint of the key that must have begun the ledger (or of one such key per role), as its owner told you.
        known_checkpoint: a signed checkpoint of this ledger that you kept.

    Raises:
        StoreError: there is nothing there, it cannot be read, or a newer auditgap wrote it.
        UsageError: not a store and not a bundle.
    """
    try:
        snapshot = _snapshot(where)
    except EvidenceInvalid as error:
        broken = Problem(leaf=None, digest=None, kind="database", what=str(error))
        root = f"sha256:{EMPTY_ROOT.hex()}"
        return Verification(n_statements=0, root=root, checkpoint=None, roots_of_trust={}, problems=(broken,))
    return check(snapshot, trusted=trusted, known_checkpoint=known_checkpoint)


def _snapshot(where: str | Path) -> Snapshot:
    path = Path(where)
    if "://" in str(where) or not path.is_file():
        with Store.open(where, create=False) as store:
            return store.snapshot()
    with path.open("rb") as file:
        if file.read(15) == b"SQLite format 3":
            raise UsageError(f"{path} is a store's database: give its folder, {path.parent}")
    return read_bundle(path)

"""The checks of `verify`, on a snapshot: pure, and never stopped by the first thing that is wrong."""

from collections.abc import Iterator, Sequence
from typing import cast

from pydantic import BaseModel, ConfigDict, computed_field

from auditgap.errors import AuditgapError, EvidenceInvalid, UsageError
from auditgap.evidence.appender import origin_of
from auditgap.evidence.checkpoint import open_checkpoint, parse_checkpoint
from auditgap.evidence.keys import KeyRecord
from auditgap.evidence.ledger import KeyHistory, Row, Snapshot, Stored, check_citations, leaf_of, read
from auditgap.evidence.merkle import EMPTY_ROOT, Frontier
from auditgap.records import Digest, Record, digest_of

__all__ = ["Problem", "Verification", "check"]


class Problem(BaseModel):
    """One thing that does not hold. Not a `Record`: nothing signs it, and `digest` is a field here."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True)

    leaf: int | None
    """The statement's position; for a checkpoint, the position of the last statement that it covers."""
    digest: str | None
    """Of the statement or blob, as recorded."""
    kind: str
    """`ledger`, `statement`, `citation`, `checkpoint`, `blob`, `key` or `database`."""
    what: str


class Verification(Record):
    """What was verified, and everything that did not hold."""

    n_statements: int
    root: Digest
    """Merkle root over the statements that are there."""
    checkpoint: str | None
    """The last signed checkpoint: keep it elsewhere, and a later verification can show that nothing was taken away."""
    roots_of_trust: dict[str, Digest]
    """Per role, the fingerprint of the key that began its chain: compare it with what its owner says."""
    problems: tuple[Problem, ...]

    @computed_field
    @property
    def ok(self) -> bool:
        """True if nothing was found wrong."""
        return not self.problems

    def raise_if_invalid(self) -> None:
        """Raise if anything was found wrong.

        Raises:
            EvidenceInvalid: names every record that does not hold.
        """
        if self.problems:
            first = "; ".join(f"{p.kind}: {p.what}" for p in self.problems[:5])
            more = f"; and {len(self.problems) - 5} more" if len(self.problems) > 5 else ""
            raise EvidenceInvalid(
                f"the evidence does not hold: {first}{more}. Use a copy that verifies, and find out who changed this one"
            )


def check(snapshot: Snapshot, *, trusted: str | Sequence[str] | None = None, known_checkpoint: str | None = None) -> Verification:
    """Check everything in a snapshot; see `verify` for the steps."""
    problems = [Problem(leaf=None, digest=None, kind="database", what=said) for said in snapshot.damage]
    statements, history = [], KeyHistory()
    for position, row in enumerate(snapshot.rows):
        if row.leaf != position:
            problems.append(
                _problem(row, "ledger", f"expected leaf {position}, got {row.leaf}: a statement was taken out or added")
            )
        try:
            stored = read(row, history)
        except EvidenceInvalid as error:
            problems.append(_problem(row, "statement", str(error)))
            continue
        statements.append(stored)
        if isinstance(stored.record, KeyRecord):
            history = history.with_key(cast("Stored[KeyRecord]", stored))
    problems += _citation_problems(statements)
    roots = _roots(snapshot.rows)
    origin = origin_of(digest_of(snapshot.rows[0].envelope)) if snapshot.rows else ""
    problems += _checkpoint_problems(snapshot, history, origin, roots)
    if known_checkpoint is not None:
        problems += _known_problems(known_checkpoint, history, origin, roots)
    problems += _blob_problems(snapshot)
    trust = {key.role: key.record.keyid for key in reversed(history.keys)}
    problems += _trust_problems(trust, (trusted,) if isinstance(trusted, str) else trusted or ())
    return Verification(
        n_statements=len(snapshot.rows),
        root=f"sha256:{roots[-1].hex()}",
        checkpoint=snapshot.checkpoints[-1][1] if snapshot.checkpoints else None,
        roots_of_trust=trust,
        problems=tuple(problems),
    )


def _problem(row: Row, kind: str, what: str) -> Problem:
    return Problem(leaf=row.leaf, digest=row.digest, kind=kind, what=what)


def _citation_problems(statements: Sequence[Stored[Record]]) -> Iterator[Problem]:
    """Everything cited comes earlier, is of the right kind, and evidence matches its registration."""
    earlier: dict[Digest, Stored[Record]] = {}
    for stored in statements:
        try:
            check_citations(stored.record, earlier.get)
        except UsageError as error:
            what = f"statement {stored.leaf} ({stored.digest}): {error}"
            yield Problem(leaf=stored.leaf, digest=stored.digest, kind="citation", what=what)
        earlier[stored.digest] = stored


def _roots(rows: Sequence[Row]) -> list[bytes]:
    """The root of every prefix, from the bytes that are there: `roots[n]` is that of the first n statements."""
    roots, tree = [EMPTY_ROOT], Frontier()
    for row in rows:
        tree = tree.append(leaf_of(digest_of(row.envelope)))
        roots.append(tree.root())
    return roots


def _checkpoint_problems(snapshot: Snapshot, history: KeyHistory, origin: str, roots: Sequence[bytes]) -> Iterator[Problem]:
    """Every checkpoint is signed by the evaluation key of its time and has the root of its prefix; the last covers all."""
    for size, note in snapshot.checkpoints:
        what = _against(note, history, origin, roots)
        if what is None and parse_checkpoint(note).size != size:
            what = f"a checkpoint of size {parse_checkpoint(note).size} is recorded as of size {size}"
        if what is not None:
            yield Problem(leaf=size - 1, digest=None, kind="checkpoint", what=f"checkpoint {size}: {what}")
    covered = snapshot.checkpoints[-1][0] if snapshot.checkpoints else 0
    if not snapshot.rows:
        yield Problem(leaf=None, digest=None, kind="ledger", what="there is no statement, so nothing was verified")
    elif covered != len(snapshot.rows):
        what = f"the last checkpoint covers {covered} statements, there are {len(snapshot.rows)}"
        yield Problem(leaf=None, digest=None, kind="ledger", what=what)


def _known_problems(known: str, history: KeyHistory, origin: str, roots: Sequence[bytes]) -> Iterator[Problem]:
    """The ledger still holds everything that it held when this checkpoint was taken."""
    what = _against(known.strip() + "\n", history, origin, roots)
    if what is not None:
        yield Problem(leaf=None, digest=None, kind="ledger", what=f"against the checkpoint you kept: {what}")


def _against(note: str, history: KeyHistory, origin: str, roots: Sequence[bytes]) -> str | None:
    """Why this checkpoint and this ledger do not agree, or None."""
    try:
        claimed = parse_checkpoint(note)
        if claimed.origin != origin:
            return f"it is of another ledger: expected {origin}, got {claimed.origin}"
        if claimed.size >= len(roots):
            return f"it covers {claimed.size} statements, the ledger holds {len(roots) - 1}: it was truncated"
        notary = history.active("evaluation", claimed.size)
        if notary is None:
            return "no evaluation key was valid then, so nothing can vouch for it"
        open_checkpoint(note, notary.raw)
    except EvidenceInvalid as error:
        return str(error)
    if claimed.root != roots[claimed.size]:
        expected, got = claimed.root.hex(), roots[claimed.size].hex()
        return f"the first {claimed.size} statements are not those that it was signed for: expected root {expected}, got {got}"
    return None


def _blob_problems(snapshot: Snapshot) -> Iterator[Problem]:
    for digest in snapshot.blobs:
        try:
            snapshot.blob(digest)
        except AuditgapError as error:
            yield Problem(leaf=None, digest=digest, kind="blob", what=str(error))


def _trust_problems(trust: dict[str, Digest], pins: Sequence[str]) -> Iterator[Problem]:
    """Each fingerprint that was given begins the chain of some role."""
    for pin in pins:
        if pin.removeprefix("sha256:") not in {digest.removeprefix("sha256:") for digest in trust.values()}:
            known = ", ".join(f"{role} {digest}" for role, digest in trust.items()) or "none"
            what = f"expected a ledger begun by the key {pin}, got keys {known}"
            yield Problem(leaf=None, digest=None, kind="key", what=what)

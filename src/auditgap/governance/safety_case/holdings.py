"""The evidence of one subject of a store, as a judge sees it."""

from pathlib import Path

from auditgap.errors import UsageError
from auditgap.evidence import Store
from auditgap.governance.judged import Judged
from auditgap.records import Date, Digest

__all__ = ["holdings"]


def holdings(store: str | Path, subject: str | None = None, *, until: Date | None = None) -> tuple[Digest, list[Judged]]:
    """The digest of the subject, and all evidence that the store holds; with `until`, none that was made after that day.

    `subject` is a digest or its beginning; None takes the only subject that there is. Evidence about others is returned too: what
    cites it can then be told that it is about another subject.

    Raises:
        StoreError, EvidenceInvalid: the store cannot be read, or a signature does not hold.
        UsageError: no subject fits, or several do.
    """
    with Store.open(store, create=False) as opened:
        registrations = {s.digest: s.record for s in opened.registrations()}
        held = [Judged(s.digest, s.record, registrations[s.record.registration], s.keyid) for s in opened.evidence()]
    names = {j.evidence.subject.digest(): j.evidence.subject.name for j in held}
    start = (subject or "").removeprefix("sha256:")
    chosen = [digest for digest in names if digest.removeprefix("sha256:").startswith(start)]
    if len(chosen) != 1:
        listed = ", ".join(f"{name} {digest[:19]}" for digest, name in sorted(names.items())) or "none"
        asked = f"one subject starting with '{subject}'" if subject else "one subject"
        raise UsageError(f"expected {asked} in the store, found {len(chosen)} (all: {listed}); choose one with --subject")
    return chosen[0], [j for j in held if until is None or j.evidence.finished_at.date() <= until]

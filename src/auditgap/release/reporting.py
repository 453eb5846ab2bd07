"""A report on a release from the files that its commands write: plain JSON, or signed envelopes with the keys to verify them."""

from collections.abc import Sequence
from pathlib import Path

from securesystemslib.signer import SSlibKey  # pyright: ignore[reportPrivateImportUsage]

from auditgap.errors import EvidenceInvalid, UsageError
from auditgap.records import Digest, now
from auditgap.records.integrity import IntegrityRun
from auditgap.records.parity import Parity
from auditgap.records.promotion import Promotion
from auditgap.release.capture.files import parse_json, read_bytes, text_of
from auditgap.release.promotion.signing import load_public_key, open_signed, parse_unsigned
from auditgap.report import Given, Release, render_release_html, render_release_markdown

__all__ = ["gather_release", "write_release_report"]


def write_release_report(files: Sequence[Path], out: Path, *, keys: Sequence[Path] = (), max_age_days: int = 30) -> Path:
    """Render the report of these records to `out` (.html or .md) and return its path.

    Raises:
        UsageError, PlanError: there is no file, one holds another record, or two hold a parity or a promotion.
        EvidenceInvalid: an envelope is not signed by any of the keys.
    """
    render = {".html": render_release_html, ".md": render_release_markdown}.get(out.suffix)
    if render is None:
        raise UsageError(f"a report is written as .html or .md, got '{out.name}'")
    page = render(gather_release(files, keys=keys, max_age_days=max_age_days))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page, encoding="utf-8")
    return out


def gather_release(files: Sequence[Path], *, keys: Sequence[Path] = (), max_age_days: int = 30) -> Release:
    """The records of the files, each with the keys whose signatures on it hold."""
    trusted = [load_public_key(path) for path in keys]
    runs: list[Given[IntegrityRun]] = []
    parities: list[Given[Parity]] = []
    promotions: list[Given[Promotion]] = []
    for path in files:
        record, keyids = _read(path, trusted)
        match record:
            case IntegrityRun():
                runs.append(Given(record, keyids))
            case Parity():
                parities.append(Given(record, keyids))
            case Promotion():
                promotions.append(Given(record, keyids))
    for kind, n in (("parity record", len(parities)), ("promotion", len(promotions))):
        if n > 1:
            raise UsageError(f"expected one {kind}, got {n}; a report is about one release")
    parity, promotion = (parities or [None])[0], (promotions or [None])[0]
    return Release(tuple(runs), parity, promotion, generated_at=now(), max_age_days=max_age_days)


def _read(path: Path, trusted: Sequence[SSlibKey]) -> tuple[IntegrityRun | Parity | Promotion, tuple[Digest, ...]]:
    """The record of one file, and the keys whose signatures on it hold."""
    data = read_bytes(path)
    document = parse_json(text_of(data, path), where=str(path))
    if not (isinstance(document, dict) and "payloadType" in document):
        return parse_unsigned(document, IntegrityRun, Parity, Promotion, where=str(path)), ()
    if not trusted:
        raise UsageError(f"{path} is signed: expected the public key of who signed it, got none; give --key")
    try:
        record, verified = open_signed(data, IntegrityRun, Parity, Promotion, trusted=trusted, threshold=1)
    except EvidenceInvalid as error:
        raise EvidenceInvalid(f"{path}: {error}") from None
    return record, verified.keyids

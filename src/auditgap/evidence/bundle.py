"""One zip that holds a whole store and verifies offline.

    manifest.json             what is in it: name and digest of each other member
    statements/000000.json    the exact envelope bytes of leaf 0, and so on; public keys are statements too
    blobs/sha256/ab/cdef...   every blob
    checkpoint.txt            the last signed checkpoint, over all statements
    report.html               optional, for people; it is not signed

Nothing is compressed and every timestamp is the same, so equal stores give equal bytes. Reading never writes to disk.
"""

import io
import re
import secrets
import stat
import struct
import zipfile
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from auditgap.errors import EvidenceInvalid
from auditgap.evidence.blobs import blob_path
from auditgap.evidence.check import check
from auditgap.evidence.ledger import Row, Snapshot
from auditgap.evidence.store import Store
from auditgap.evidence.tables import explained
from auditgap.records import Digest, Record, digest_of, explain

__all__ = ["Manifest", "bundle", "read_bundle"]

MAX_MEMBER_BYTES = 1 << 30
"""A member larger than 1 GiB is refused: evidence is text, and data sets of that size belong elsewhere."""
_MEMBER = re.compile(
    r"manifest\.json|checkpoint\.txt|report\.html|statements/[0-9]{6,9}\.json|blobs/sha256/[0-9a-f]{2}/[0-9a-f]{62}"
)


class Manifest(Record):
    """What a bundle says it holds."""

    schema_version: Literal["auditgap.dev/bundle/v1"] = "auditgap.dev/bundle/v1"
    members: dict[str, Digest]
    """Name and digest of every other member."""


def bundle(store: Store, path: str | Path, *, report: str | Path | None = None) -> Path:
    """Write the whole store to one zip file and return its path; a file of that name is replaced.

    Raises:
        EvidenceInvalid: the store does not verify, so there is nothing to pass on.
        StoreError: the file cannot be written.
    """
    path, snapshot = Path(path), store.snapshot()
    check(snapshot).raise_if_invalid()
    with explained(str(path)):
        members = {f"statements/{row.leaf:06d}.json": row.envelope for row in snapshot.rows}
        members |= {f"blobs/{blob_path(digest)}": snapshot.blob(digest) for digest in snapshot.blobs}
        members["checkpoint.txt"] = snapshot.checkpoints[-1][1].encode()
        if report is not None:
            members["report.html"] = Path(report).read_bytes()
        digests = {name: digest_of(data) for name, data in sorted(members.items())}
        manifest = Manifest(members=digests)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            part.write_bytes(_zipped({"manifest.json": manifest.canonical(), **dict(sorted(members.items()))}))
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    return path


def read_bundle(path: Path) -> Snapshot:
    """Read a bundle's members, without believing any of them.

    Raises:
        EvidenceInvalid: not a bundle, or a member has no place in one: outside its folder, twice, a link, compressed, too large.
        StoreError: the file cannot be read.
    """
    with explained(str(path)):
        try:
            with zipfile.ZipFile(path) as archive:
                members = {info.filename: archive.read(info) for info in _listed(archive)}
        except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error) as error:
            raise EvidenceInvalid(f"{path} is not a whole bundle: {error}; get a fresh copy") from None
    try:
        manifest = Manifest.model_validate_json(members.pop("manifest.json"))
        note = members["checkpoint.txt"].decode()
    except KeyError as error:
        raise EvidenceInvalid(f"{path} has no {error}: not a bundle, or not a whole one") from None
    except ValidationError as error:
        raise EvidenceInvalid(f"manifest.json of {path} is not a bundle's: {explain(error, Manifest)}") from None
    except UnicodeDecodeError:
        raise EvidenceInvalid(f"checkpoint.txt of {path} is not text") from None
    return _snapshot(manifest, members, note)


def _snapshot(manifest: Manifest, members: dict[str, bytes], note: str) -> Snapshot:
    """The members as a snapshot; what disagrees with the manifest is damage."""
    damage = [f"{name} is in the manifest and not in the zip" for name in sorted(manifest.members.keys() - members.keys())]
    damage += [f"{name} is in the zip and not in the manifest" for name in sorted(members.keys() - manifest.members.keys())]
    rows, blobs = [], {}
    for name, data in sorted(members.items()):
        listed = manifest.members.get(name, digest_of(data))
        if name.startswith("statements/"):
            rows.append(Row(int(name[11:-5]), listed, data))  # `read` compares digest and bytes
        elif listed != digest_of(data):
            damage.append(f"{name} has digest {digest_of(data)}, the manifest says {listed}")
        if name.startswith("blobs/"):
            blobs["sha256:" + name.removeprefix("blobs/sha256/").replace("/", "")] = data
    rows.sort(key=lambda row: row.leaf)

    def blob(digest: Digest) -> bytes:
        if digest_of(blobs[digest]) != digest:
            raise EvidenceInvalid(f"blob {digest} holds other bytes ({digest_of(blobs[digest])})")
        return blobs[digest]

    return Snapshot(tuple(rows), ((len(rows), note),), tuple(blobs), blob, tuple(damage))


def _listed(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The members, if each of them may be in a bundle."""
    infos = archive.infolist()
    for info in infos:
        if not _MEMBER.fullmatch(info.filename):
            raise EvidenceInvalid(f"a bundle has no member {info.filename!r}: it may have been made to write outside its folder")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise EvidenceInvalid(f"member {info.filename} is a symbolic link")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise EvidenceInvalid(
                f"member {info.filename} is compressed; bundles are not, so that a small file cannot unpack to a huge one"
            )
        if info.file_size > MAX_MEMBER_BYTES:
            raise EvidenceInvalid(f"member {info.filename} has {info.file_size} bytes, the limit is {MAX_MEMBER_BYTES}")
    names = [info.filename for info in infos]
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise EvidenceInvalid(f"the bundle holds {', '.join(repeated)} twice, so readers could disagree on it")
    return infos


def _zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, (stat.S_IFREG | 0o644) << 16
            archive.writestr(info, data)
    return buffer.getvalue()

"""Evidence, frozen when an incident is opened: content-addressed, and with fields that can be erased without breaking a proof.

    bundle.zip      the whole evidence store, as `auditgap evidence bundle` writes it
    manifest.json   the affected release
    events.jsonl    the event stream of the run
    effects.json    what the backend really did
    case.json       the case and stimuli that reproduce it, if there is one yet

Each sensitive field is replaced by its commitment: the digest of a file that holds the value and a random salt. Deleting that
file erases the value; the digests of everything else still hold, and nobody can guess the value from its commitment.
"""

import json
import secrets
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, JsonValue

from auditgap.errors import DataError, EvidenceInvalid, StoreError, UsageError
from auditgap.evidence import Store, bundle
from auditgap.evidence.blobs import Blobs, blob_path
from auditgap.records import Digest, Record, UtcTime, canonical_json, digest_of, now
from auditgap.records.manifest import ReleaseManifest
from auditgap.release import EffectLedger, Event
from auditgap.release.capture.files import parse_json, read_bytes, text_of
from auditgap.release.cases import Case, Stimulus

__all__ = ["SENSITIVE", "Frozen", "Member", "MemberState", "erase", "freeze", "inspect", "thaw", "thaw_case"]

SENSITIVE = frozenset({"arguments", "detail", "prompt"})
"""Keys whose values are committed to rather than written down: where people's words, names and amounts are."""

COMMITTED = "$commitment"


class Member(Record):
    """One frozen file."""

    name: Literal["bundle.zip", "manifest.json", "events.jsonl", "effects.json", "case.json"]
    content: Digest
    size: int = Field(ge=0)
    openings: tuple[Digest, ...] = ()
    """Of the salted values of its sensitive fields."""


class Frozen(Record):
    """The index of frozen evidence; its digest is in the signed incident."""

    schema_version: Literal["auditgap.dev/frozen/v1"] = "auditgap.dev/frozen/v1"
    release: Digest
    members: tuple[Member, ...] = Field(min_length=1)
    absent: dict[str, str] = Field(default_factory=dict)
    """What was not frozen, and why."""
    frozen_at: UtcTime


class MemberState(NamedTuple):
    """Whether a frozen file is still as it was."""

    name: str
    state: Literal["whole", "fields-erased", "erased", "damaged"]
    n_erased: int = 0
    """Sensitive fields that were erased."""


def freeze(
    folder: Path,
    manifest: ReleaseManifest,
    *,
    store: Store | None = None,
    events: Path | None = None,
    effects: Path | None = None,
    case: Case | None = None,
    stimuli: Sequence[Stimulus] = (),
    sensitive: Collection[str] = SENSITIVE,
) -> Digest:
    """Keep everything that the analysis of causes needs, and return the digest of its index.

    Args:
        folder: where to keep it, apart from the store: what is frozen there holds the store itself.
        manifest: of the affected release.
        store: the evidence store at this moment.
        events: the event stream of the run, as JSON lines.
        effects: the effect ledger; it is copied before it is read.
        case: what reproduces the incident.
        stimuli: of the case.
        sensitive: keys whose values can later be erased.

    Raises:
        UsageError: a file cannot be read.
        DataError: a file is not what it must be.
    """
    blobs, members, absent = Blobs(str(folder)), [], {}

    def keep(name: str, data: bytes, openings: Sequence[Digest] = ()) -> None:
        members.append(
            Member.model_validate({"name": name, "content": blobs.put(data), "size": len(data), "openings": tuple(openings)})
        )

    if store is not None and len(store):
        keep("bundle.zip", _bundled(store))
    else:
        absent["bundle.zip"] = "no store was given" if store is None else "the store was empty"
    keep("manifest.json", manifest.canonical())
    documents: dict[str, JsonValue | None] = {
        "events.jsonl": _events(events) if events else None,
        "effects.json": _effects(effects) if effects else None,
        "case.json": _case(case, stimuli) if case else None,
    }
    for name, document in documents.items():
        if document is None:
            absent[name] = "none was given"
            continue
        openings: list[Digest] = []
        shown = _committed(document, frozenset(sensitive), lambda opening, to=openings: to.append(blobs.put(opening)))
        keep(name, _lines(shown) if name.endswith("l") else canonical_json(shown), openings)
    index = Frozen(release=manifest.fingerprint(), members=tuple(members), absent=absent, frozen_at=now())
    return blobs.put(index.canonical())


def inspect(folder: Path, digest: Digest) -> tuple[MemberState, ...]:
    """The state of each file of frozen evidence.

    Raises:
        StoreError, EvidenceInvalid: the index itself is not there, or was changed.
    """
    index, blobs = _index(folder, digest), Blobs(str(folder))
    return tuple(_state(blobs, member) for member in index.members)


def thaw(folder: Path, digest: Digest, name: str) -> JsonValue:
    """A frozen JSON file with the fields that were not erased; an erased one stays a commitment.

    Raises:
        UsageError: it was not frozen.
        StoreError, EvidenceInvalid: it is not there any more, or was changed.
    """
    index, blobs = _index(folder, digest), Blobs(str(folder))
    member = next((member for member in index.members if member.name == name), None)
    if member is None:
        raise UsageError(f"{name} was not frozen: {index.absent.get(name, 'no such member')}")
    data = blobs.get(member.content)
    document = [json.loads(line) for line in data.splitlines()] if name.endswith("l") else json.loads(data)
    return _opened(document, blobs)


def thaw_case(folder: Path, digest: Digest) -> tuple[Case, tuple[Stimulus, ...]]:
    """The frozen case with its stimuli.

    Raises:
        UsageError: none was frozen.
        PlanError: its stimuli were erased.
    """
    document = thaw(folder, digest, "case.json")
    found = document if isinstance(document, dict) else {}
    stimuli = found.get("stimuli")
    listed = stimuli if isinstance(stimuli, list) else []
    return Case.parse(found.get("case"), where="case.json"), tuple(Stimulus.parse(s, where="case.json") for s in listed)


def erase(folder: Path, digest: Digest) -> bool:
    """Delete one file of frozen evidence, such as the opening of a sensitive field; False if it was not there."""
    path = folder / blob_path(digest)
    was_there = path.exists()
    path.unlink(missing_ok=True)
    return was_there


def _index(folder: Path, digest: Digest) -> Frozen:
    return Frozen.parse(json.loads(Blobs(str(folder)).get(digest)), where=f"{folder}: frozen index")


def _state(blobs: Blobs, member: Member) -> MemberState:
    try:
        blobs.get(member.content)
        there = [_is_there(blobs, opening) for opening in member.openings]
    except StoreError:
        return MemberState(member.name, "erased")
    except EvidenceInvalid:
        return MemberState(member.name, "damaged")
    n_erased = there.count(False)
    return MemberState(member.name, "fields-erased" if n_erased else "whole", n_erased)


def _is_there(blobs: Blobs, digest: Digest) -> bool:
    try:
        blobs.get(digest)
    except StoreError:
        return False
    return True


def _committed(value: JsonValue, keys: frozenset[str], put: Callable[[bytes], object]) -> JsonValue:
    """The value with what stands under the keys replaced by commitments; `put` is handed what opens each."""
    match value:
        case list():
            return [_committed(item, keys, put) for item in value]
        case dict():
            return {key: _commitment(item, put) if key in keys else _committed(item, keys, put) for key, item in value.items()}
    return value


def _commitment(value: JsonValue, put: Callable[[bytes], object]) -> JsonValue:
    opening = canonical_json({"salt": secrets.token_hex(32), "value": value})
    put(opening)
    return {COMMITTED: digest_of(opening)}


def _opened(value: JsonValue, blobs: Blobs) -> JsonValue:
    match value:
        case {"$commitment": str(digest)} if len(value) == 1:
            return json.loads(blobs.get(digest))["value"] if _is_there(blobs, digest) else value
        case list():
            return [_opened(item, blobs) for item in value]
        case dict():
            return {key: _opened(item, blobs) for key, item in value.items()}
    return value


def _bundled(store: Store) -> bytes:
    with tempfile.TemporaryDirectory(prefix="auditgap-freeze-") as folder:
        return bundle(store, Path(folder) / "bundle.zip").read_bytes()


def _events(path: Path) -> list[JsonValue]:
    lines = text_of(read_bytes(path), path).splitlines()
    where = [f"{path}: line {number}" for number in range(1, len(lines) + 1)]
    return [
        Event.parse(parse_json(line, where=at), where=at).model_dump(mode="json") for line, at in zip(lines, where, strict=True)
    ]


def _effects(path: Path) -> list[JsonValue]:
    """The effects in a ledger, read from a copy: opening a ledger writes to it."""
    if not path.is_file():
        raise UsageError(f"cannot read effect ledger {path}: there is no such file")
    with tempfile.TemporaryDirectory(prefix="auditgap-freeze-") as folder:
        for part in (path, path.with_name(f"{path.name}-wal")):
            if part.exists():
                shutil.copy(part, folder)
        try:
            return [effect.model_dump(mode="json") for effect in EffectLedger(Path(folder) / path.name).effects()]
        except sqlite3.DatabaseError as error:
            raise DataError(f"{path}: expected an effect ledger, got: {error}") from None


def _case(case: Case, stimuli: Sequence[Stimulus]) -> JsonValue:
    """Without defaults, so that the digest of what is read again is the same."""
    return {
        "case": case.model_dump(mode="json", exclude_defaults=True),
        "stimuli": [stimulus.model_dump(mode="json", exclude_defaults=True) for stimulus in stimuli],
    }


def _lines(document: JsonValue) -> bytes:
    assert isinstance(document, list), "an event stream is a list"
    return b"".join(canonical_json(item) + b"\n" for item in document)

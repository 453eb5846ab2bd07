"""Where a release comes from, checked without a network; what is not checked is said to be open.

- A lockfile is read as the manifest reads it, and must be the one that the manifest declares.
- An SBOM must be CycloneDX; it is compared with the lockfile by name and version where both are there.
- A build provenance is a DSSE envelope with a SLSA v1 statement, alone or in a Sigstore bundle. Its signature is checked with a
  key that the caller trusts. Certificates and transparency logs are not: that needs a trust root, and a network to keep it fresh.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import JsonValue
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SigningError
from securesystemslib.signer import Key, Signature, SSlibKey  # pyright: ignore[reportPrivateImportUsage]

from auditgap.errors import DataError, UsageError
from auditgap.records import Digest, digest_of
from auditgap.records.manifest import ReleaseManifest
from auditgap.records.promotion import ProvenanceItem
from auditgap.release.capture.component import component
from auditgap.release.capture.files import parse_json, read_bytes, text_of
from auditgap.release.capture.lockfile import lockfile

__all__ = ["provenance_of"]

_SLSA = "https://slsa.dev/provenance/v1"


def provenance_of(
    manifest: ReleaseManifest,
    *,
    lock: Path | None = None,
    sbom: Path | None = None,
    build: Path | None = None,
    build_key: Path | None = None,
) -> tuple[ProvenanceItem, ...]:
    """What each file shows about the release; a file that is not given gives no item.

    Raises:
        DataError: a file cannot be read or is not what it should be.
        UsageError: the build key is no public key.
    """
    found: list[ProvenanceItem] = []
    if lock:
        found.append(_lockfile(manifest, lock))
    if sbom:
        found.append(_sbom(sbom, lock))
    if build:
        files = {path.name: digest_of(read_bytes(path)) for path in (lock, sbom) if path}
        found.append(_build(build, build_key, files | _artefacts(manifest)))
    return tuple(found)


def _lockfile(manifest: ReleaseManifest, path: Path) -> ProvenanceItem:
    read = lockfile(path)
    ours = component("lockfile", "main", read.value, raw=read.raw, source=read.source)
    declared = [c.normal_digest for c in manifest.of("lockfile")]
    item = ProvenanceItem(kind="lockfile", name=path.name, content=read.raw, verified=())
    if ours.normal_digest in declared:
        return item.model_copy(update={"verified": ("it is the lockfile that the manifest declares",)})
    return item.model_copy(update={"wrong": (f"the manifest declares {'another' if declared else 'no'} lockfile",)})


def _sbom(path: Path, lock: Path | None) -> ProvenanceItem:
    data = read_bytes(path)
    document = parse_json(text_of(data, path), where=str(path))
    components = document.get("components") if isinstance(document, dict) else None
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX" or not isinstance(components, list):
        raise DataError(f"{path}: expected a CycloneDX document with components")
    listed = {(_name(c.get("name")), str(c.get("version"))) for c in components if isinstance(c, dict)}
    verified = [f"CycloneDX {document.get('specVersion')} with {len(listed)} components"]
    wrong, open_ = [], ["not compared with a lockfile: none with names and versions was given"]
    if packages := _packages(lock) if lock else set():
        open_ = []
        if missing := sorted(f"{name} {version}" for name, version in packages - listed):
            wrong.append(f"{len(missing)} of {len(packages)} locked packages are not in it, such as {missing[0]}")
        else:
            verified.append(f"holds all {len(packages)} locked packages by name and version")
    item = ProvenanceItem(kind="sbom", name=path.name, content=digest_of(data), verified=tuple(verified))
    return item.model_copy(update={"wrong": tuple(wrong), "open": tuple(open_)})


def _packages(path: Path) -> set[tuple[str, str]]:
    value = lockfile(path).value
    items = (
        [item for versions in value.values() for item in versions] if isinstance(value, dict) and "sha256" not in value else []
    )
    tables = {(_name(item["name"]), str(item["version"])) for item in items if isinstance(item, dict) and "version" in item}
    pins = [re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*==\s*([^\s;,]+)", item) for item in items if isinstance(item, str)]
    return tables | {(_name(pin[1]), pin[2]) for pin in pins if pin}


def _name(name: object) -> str:
    """As PEP 503 compares names of distributions."""
    return re.sub(r"[-_.]+", "-", str(name)).lower()


def _artefacts(manifest: ReleaseManifest) -> dict[str, Digest]:
    files = [(c.kind, c.content) for c in manifest.components if c.kind in ("weights", "adapter") and isinstance(c.content, dict)]
    named = {path: file["content"] for _, content in files for path, file in content.items() if isinstance(file, dict)}
    return {path: str(digest) for path, digest in named.items()} | {"release manifest": manifest.fingerprint()}


def _build(path: Path, key_path: Path | None, artefacts: dict[str, Digest]) -> ProvenanceItem:
    data = read_bytes(path)
    document = parse_json(text_of(data, path), where=str(path))
    if not isinstance(document, dict):
        raise DataError(f"{path}: expected a DSSE envelope or a Sigstore bundle, got {type(document).__name__}")
    bundle = document.get("dsseEnvelope")
    item = ProvenanceItem(kind="build", name=path.name, content=digest_of(data), verified=())
    if key_path is None:
        return item.model_copy(update={"open": ("no key was given, so the signature was not checked",)})
    payload = _signed_payload(bundle if isinstance(bundle, dict) else document, _any_key(key_path), path)
    statement = parse_json(payload.decode("utf-8", "replace"), where=str(path))
    if not isinstance(statement, dict) or statement.get("predicateType") != _SLSA:
        raise DataError(f"{path}: expected a statement of type {_SLSA}, got {str(statement)[:80]}")
    verified = [f"signed by the key in {key_path.name}", f"builder {_builder(statement)}"]
    digests = {f"sha256:{sha}" for sha in _subject_digests(statement)}
    covered = sorted(name for name, digest in artefacts.items() if digest in digests)
    verified += [f"is about {', '.join(covered)}"] if covered else []
    wrong = () if covered else ("it is about nothing that this release holds",)
    open_ = ("certificate and transparency log of the bundle were not checked",) if bundle is not None else ()
    return item.model_copy(update={"verified": tuple(verified), "wrong": wrong, "open": open_})


def _signed_payload(envelope: dict[str, JsonValue], key: Key, path: Path) -> bytes:
    """The payload that the key signed. Keyids are hints in DSSE, so every signature is tried."""
    try:
        payload = base64.b64decode(str(envelope["payload"]), validate=True)
        signatures = [base64.b64decode(str(item["sig"]), validate=True) for item in _dicts(envelope["signatures"])]
        pae = Envelope(payload=payload, payload_type=str(envelope["payloadType"]), signatures={}).pae()
    except (KeyError, binascii.Error) as error:
        raise DataError(f"{path}: expected a DSSE envelope, got one without {error}") from None
    if not any(_holds(key, signature, pae) for signature in signatures):
        raise DataError(f"{path}: no signature holds under the given key; the file was changed, or another key signed it")
    return payload


def _holds(key: Key, signature: bytes, pae: bytes) -> bool:
    try:
        key.verify_signature(Signature(key.keyid, signature.hex()), pae)
    except SigningError:
        return False
    return True


def _any_key(path: Path) -> Key:
    try:
        return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(f"{path}: expected a public key in PEM form, got: {error}") from None


def _builder(statement: dict[str, JsonValue]) -> JsonValue:
    found: JsonValue = statement
    for name in ("predicate", "runDetails", "builder", "id"):
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _subject_digests(statement: dict[str, JsonValue]) -> Sequence[JsonValue]:
    digests = [item.get("digest") for item in _dicts(statement.get("subject"))]
    return [digest.get("sha256") for digest in digests if isinstance(digest, dict)]


def _dicts(value: JsonValue) -> list[dict[str, JsonValue]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []

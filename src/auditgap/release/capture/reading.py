"""Manifests on disk."""

from pathlib import Path

from auditgap.errors import PlanError
from auditgap.records.manifest import ReleaseManifest
from auditgap.release.capture.files import parse_json, read_bytes, text_of

__all__ = ["read_manifest", "write_manifest"]

_VERSION = "auditgap.dev/release-manifest/v1"


def read_manifest(path: str | Path) -> ReleaseManifest:
    """A manifest; each component's content is checked against its digest.

    Raises:
        PlanError: it is a manifest of another version, or none.
        DataError: the file cannot be read or is not JSON.
    """
    path = Path(path)
    document = parse_json(text_of(read_bytes(path), path), where=str(path))
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != _VERSION:
        raise PlanError(f"{path}: expected a manifest of version {_VERSION}, got {version!r}; capture the release again")
    return ReleaseManifest.parse(document, where=str(path))


def write_manifest(manifest: ReleaseManifest, path: str | Path) -> None:
    """Write a manifest as indented JSON."""
    Path(path).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")

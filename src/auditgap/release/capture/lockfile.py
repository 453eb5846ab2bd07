"""A lockfile as the set of packages that it pins: the order of entries and the date of its making mean nothing."""

import re
import tomllib
from pathlib import Path

from pydantic import JsonValue

from auditgap.errors import DataError
from auditgap.records import canonical_json, digest_of
from auditgap.release.capture.files import Read, parse_json, read_bytes, text_of
from auditgap.release.capture.normal import normal_json

__all__ = ["lockfile"]


def lockfile(path: Path) -> Read:
    """CycloneDX (.json), uv.lock or poetry.lock (.lock), pip's requirements (.txt); of any other format, its digest.

    Raises:
        DataError: the file cannot be read or is not what its name says.
    """
    data = read_bytes(path)
    raw = digest_of(data)
    match path.suffix.lower():
        case ".json":
            document = parse_json(text_of(data, path), where=str(path))
            value = _cyclonedx(document, path)
        case ".lock" | ".toml":
            value = _toml(text_of(data, path), path)
        case ".txt":
            lines = (line.split(" #")[0].strip() for line in text_of(data, path).replace("\\\n", " ").splitlines())
            pinned = [" ".join(line.split()) for line in lines if line and not line.startswith("#")]
            value = _by_name([(re.split(r"[^A-Za-z0-9._-]", line.lstrip("-"))[0].lower(), line) for line in pinned])
        case _:
            value = {"sha256": raw}
    return Read(value, raw, path.name)


def _cyclonedx(document: object, path: Path) -> JsonValue:
    components = document.get("components") if isinstance(document, dict) else None
    if not isinstance(document, dict) or document.get("bomFormat") != "CycloneDX" or not isinstance(components, list):
        raise DataError(f"{path}: expected a CycloneDX document with components; name a lockfile or an SBOM")
    kept = ("type", "group", "name", "version", "purl", "hashes")
    return _by_name([(str(c.get("name")), {key: c[key] for key in kept if key in c}) for c in components if isinstance(c, dict)])


def _toml(text: str, path: Path) -> JsonValue:
    try:
        packages = tomllib.loads(text).get("package")
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{path}: expected TOML, got: {error}") from None
    if not isinstance(packages, list) or not packages:
        raise DataError(f"{path}: expected a lockfile with [[package]] entries, got none")
    return _by_name([(str(package.get("name")), package) for package in packages])


def _by_name(items: list[tuple[str, object]]) -> JsonValue:
    """Packages by name; more than one of a name in a fixed order."""
    found: dict[str, list[JsonValue]] = {}
    for name, item in items:
        found.setdefault(name, []).append(normal_json(item))
    return {name: sorted(versions, key=canonical_json) for name, versions in found.items()}

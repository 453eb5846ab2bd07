"""Files of a release: read once, digested as they are, never run."""

import json
from pathlib import Path
from typing import NamedTuple

from pydantic import JsonValue

from auditgap.errors import DataError
from auditgap.governance.document import read
from auditgap.records import Digest, FileDigest, digest_of

__all__ = ["Read", "file_digests", "parse_json", "read_bytes", "read_value", "text_of"]

MAX_TEXT_BYTES = 64_000_000
_NOT_SHIPPED = (".git", ".gitattributes", ".gitignore", ".github", ".cache")
_NOT_LOADED = (".md", ".sig", ".sigstore")


class Read(NamedTuple):
    """A value with the digest of the bytes that it was read from."""

    value: object
    raw: Digest
    source: str


def read_bytes(path: Path) -> bytes:
    """The bytes of one text-like file.

    Raises:
        DataError: there is no such file, or it is too big to be configuration.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: expected a file, got something else; name the file")
        if (size := path.stat().st_size) > MAX_TEXT_BYTES:
            raise DataError(f"{path}: expected at most {MAX_TEXT_BYTES} bytes, got {size}; name it under weights or retrieval")
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: expected a readable file, got: {error}; check the path") from None


def text_of(data: bytes, path: Path) -> str:
    """`data` as UTF-8.

    Raises:
        DataError: it is not.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, got: {error}") from None


def read_value(path: Path) -> Read:
    """A JSON, JSON Lines or YAML file as parsed, any other as text; JSON with a key given twice is refused.

    Raises:
        DataError, PlanError: it cannot be read, or is not what its name says.
    """
    data = read_bytes(path)
    raw = digest_of(data)
    match path.suffix.lower():
        case ".json":
            value: object = parse_json(text_of(data, path), where=str(path))
        case ".jsonl":
            lines = [line for line in text_of(data, path).splitlines() if line.strip()]
            value = [parse_json(line, where=f"{path}:{number}") for number, line in enumerate(lines, start=1)]
        case ".yaml" | ".yml":
            value = read(path)
        case _:
            value = text_of(data, path)
    return Read(value, raw, path.name)


def parse_json(text: str, *, where: str) -> object:
    """Strict JSON: no key twice, no NaN.

    Raises:
        DataError: it is not JSON, or two readers could read two things.
    """

    def once(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
        if len(found := dict(pairs)) != len(pairs):
            twice = next(key for index, (key, _) in enumerate(pairs) if key in dict(pairs[:index]))
            raise DataError(f"{where}: key '{twice}' is given twice; keep one")
        return found

    def refuse(constant: str) -> None:
        raise DataError(f"{where}: {constant} is not JSON")

    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=refuse)
    except RecursionError:
        raise DataError(f"{where}: nested too deep to be read") from None
    except DataError:
        raise
    except ValueError as error:
        raise DataError(f"{where}: expected JSON, got: {error}") from None


def file_digests(path: Path) -> list[FileDigest]:
    """Every file of a folder in the OpenSSF model-signing form (relative path, digest), or the one file that `path` is.

    Left out: version control, Markdown and signatures, which no loader reads. A link to a file counts as the file.

    Raises:
        DataError: nothing is there, or something that is neither file nor plain folder.
    """
    if path.is_file():
        return [FileDigest.of(path)]
    if not path.is_dir():
        raise DataError(f"{path}: expected a file or folder, got nothing; paths start from the release file's folder")
    files = []
    for found in sorted(path.rglob("*")):
        if not _shipped(found.relative_to(path)):
            continue
        if found.is_file():
            files.append(found)
        elif found.is_symlink() or not found.is_dir():
            raise DataError(f"{found}: neither a file nor a plain folder; put the files themselves there")
    if not files:
        raise DataError(f"{path}: expected files, got an empty folder")
    return [FileDigest.of(file, root=path) for file in files]


def _shipped(relative: Path) -> bool:
    return not any(part in _NOT_SHIPPED for part in relative.parts) and relative.suffix.lower() not in _NOT_LOADED

"""Zip archives that strangers wrote.

An archive is refused from its directory alone (number of entries, declared sizes, ratio) before anything is inflated. What is
inflated then comes in small pieces, and may not differ from what was declared.
"""

import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from auditgap.errors import DataError
from auditgap.exchange.reading import Json, Limits, mapping, opened, parse, shown

__all__ = ["Archive"]

PIECE_BYTES = 4096
"""Entries are inflated in pieces of this size: zipfile bounds what a piece inflates to by its input, not by the declared size."""
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)
ZSTANDARD = 93
"""Compression method of Inspect's newer archives."""


class Archive:
    """The entries of a zip file whose directory was found within limits."""

    def __init__(self, archive: zipfile.ZipFile, path: Path, limits: Limits) -> None:
        self._archive, self._path = archive, path
        infos = archive.infolist()
        if len(infos) > limits.archive_entries:
            raise DataError(f"{path}: expected at most {limits.archive_entries:,} entries, got {len(infos):,}: not read")
        total = sum(info.file_size for info in infos)
        if total > limits.archive_bytes:
            raise DataError(f"{path}: expected at most {limits.archive_bytes:,} bytes inflated, declared are {total:,}: not read")
        for info in infos:
            ratio = info.file_size / max(info.compress_size, 1)
            if info.file_size > limits.document_bytes:
                raise DataError(
                    f"{path}: {shown(info.filename)}: expected at most {limits.document_bytes:,} bytes, declared are "
                    f"{info.file_size:,}: not read"
                )
            if info.file_size > limits.small_bytes and ratio > limits.ratio:
                raise DataError(
                    f"{path}: {shown(info.filename)}: expected to inflate at most {limits.ratio}-fold, declared is "
                    f"{ratio:,.0f}-fold: a decompression bomb is not read; write an honest log as JSON"
                )
        self._damage = (*DAMAGE, *_inflaters({info.compress_type for info in infos}, path))
        self._infos = {info.filename: info for info in infos}
        self.n_replaced = len(infos) - len(self._infos)
        """Entries that a later one of the same name replaces."""

    @property
    def names(self) -> list[str]:
        """Names of the entries, sorted, each once."""
        return sorted(self._infos)

    def read(self, name: str) -> Json:
        """One entry as a JSON object.

        Raises:
            DataError: it is not there, encrypted, damaged, other than declared or not JSON.
        """
        where = f"{self._path}: {shown(name)}"
        if name not in self._infos:
            raise DataError(f"{where} is missing: not an Inspect log, or its run never ended; see 'inspect log recover'")
        info, data = self._infos[name], bytearray()
        try:
            with self._archive.open(info) as entry:
                while piece := entry.read(PIECE_BYTES):
                    data += piece
        except self._damage as error:
            raise DataError(f"{where}: expected a whole entry, got a damaged one ({error}); get a fresh copy") from None
        if len(data) != info.file_size:
            raise DataError(f"{where}: expected {info.file_size:,} bytes as declared, got {len(data):,}; get a fresh copy")
        return mapping(parse(bytes(data), where), where)

    @classmethod
    @contextmanager
    def open(cls, path: Path, limits: Limits) -> "Iterator[Archive]":
        """Open an archive and check its directory; nothing is inflated yet."""
        with opened(path) as file:
            try:
                archive = zipfile.ZipFile(file)
            except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
                raise DataError(f"{path}: expected a whole zip archive, got a damaged one ({error}); get a fresh copy") from None
            with archive:
                yield cls(archive, path, limits)


def _inflaters(methods: set[int], path: Path) -> tuple[type[Exception], ...]:
    """Check that every entry can be inflated; what Zstandard raises on damage, where it is needed."""
    if unknown := methods - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, ZSTANDARD}:
        raise DataError(
            f"{path}: expected entries compressed by deflate or Zstandard, got method {min(unknown)}: not an Inspect log"
        )
    if ZSTANDARD not in methods:
        return ()
    try:
        if sys.version_info >= (3, 14):
            from compression.zstd import ZstdError
        else:
            import zipfile_zstd  # noqa: F401  # type: ignore[import-not-found]  # teaches zipfile the method
            from zstandard import ZstdError  # type: ignore[import-not-found]
    except ModuleNotFoundError:
        raise DataError(
            f"{path}: this Python cannot inflate Zstandard: pip install zipfile-zstd (inspect-ai brings it), or write the log "
            "with 'inspect log convert --to json'"
        ) from None
    return (ZstdError,)

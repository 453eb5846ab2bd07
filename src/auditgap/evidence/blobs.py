"""Content-addressed files: `sha256/ab/cdef...`, written once, checked on every read; local, s3 or gs through fsspec."""

import re
import secrets

from fsspec.core import url_to_fs

from auditgap.errors import EvidenceInvalid, StoreError, UsageError
from auditgap.evidence.tables import explained
from auditgap.records import Digest, digest_of

__all__ = ["Blobs", "blob_path"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def blob_path(digest: Digest) -> str:
    """Where a blob lies below the root: `sha256/ab/cdef...`.

    Raises:
        UsageError: not a digest.
    """
    if not _DIGEST.fullmatch(digest):
        raise UsageError(f"expected sha256: and 64 hexadecimal digits, got {digest!r}")
    return f"sha256/{digest[7:9]}/{digest[9:]}"


class Blobs:
    """The blobs below one folder or bucket URL."""

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            self._fs, self._root = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"blobs cannot be kept at {url}: {error}") from None

    def put(self, data: bytes) -> Digest:
        """Keep these bytes and return their digest; the same bytes are kept once.

        Raises:
            StoreError: they cannot be written.
        """
        digest = digest_of(data)
        path = f"{self._root}/{blob_path(digest)}"
        with explained(self.url):
            if not self._fs.exists(path):
                part = f"{path}.{secrets.token_hex(4)}.part"
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                self._fs.pipe_file(part, data)
                self._fs.mv(part, path)
        return digest

    def get(self, digest: Digest) -> bytes:
        """The bytes of this digest.

        Raises:
            StoreError: they are not here.
            EvidenceInvalid: what lies here has another digest.
        """
        with explained(self.url):
            try:
                data = self._fs.cat_file(f"{self._root}/{blob_path(digest)}")
            except FileNotFoundError:
                raise StoreError(f"blob {digest} is not in {self.url}: restore it from a copy or a bundle") from None
        if digest_of(data) != digest:
            raise EvidenceInvalid(f"blob {digest} holds other bytes ({digest_of(data)}): restore it from a copy or a bundle")
        return data

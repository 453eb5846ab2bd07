"""What is audited, pinned by digest."""

import hashlib
from pathlib import Path
from typing import Self

from pydantic import Field

from auditgap.records.base import Digest, Record, digest_of

__all__ = ["FileDigest", "Subject"]


class FileDigest(Record):
    """One file of the subject, in the OpenSSF model-signing manifest form: relative path and content digest."""

    path: str
    content: Digest
    size: int = Field(ge=0)

    @classmethod
    def of(cls, path: Path, *, root: Path | None = None) -> Self:
        """The file as it is now, read as a stream; its path counts from `root` [default: its own folder]."""
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
            return cls(path=path.relative_to(root or path.parent).as_posix(), content=f"sha256:{content}", size=file.tell())


class Subject(Record):
    """A model as it would ship. Two subjects are the same exactly if their `digest()` is the same."""

    name: str
    """The last part of the path or Hub id; for people, not for identity."""
    revision: str | None = None
    """Hub commit; None for a local directory."""
    architecture: str
    """e.g. `LlamaForCausalLM`."""
    weights: tuple[FileDigest, ...] = Field(min_length=1)
    """Weight files and config.json."""
    tokenizer: tuple[FileDigest, ...]
    chat_template: Digest | None = None
    """None if the tokenizer has no chat template."""
    adapter: tuple[FileDigest, ...] = ()
    dtype: str
    """The dtype in which it was measured; another dtype is another subject."""
    n_parameters: int = Field(gt=0)

    def digest(self) -> str:
        """Identity by content: a copy under another name, or fetched at another time, is the same subject."""
        return digest_of(self.model_copy(update={"name": "", "revision": None}).canonical())

"""Rows and sets: what a data file holds once it has been read and found sound."""

from collections.abc import Iterable
from typing import Annotated, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from auditgap.errors import DataError, UsageError, nearest
from auditgap.records import DataRef, Record, canonical_json, digest_of

__all__ = [
    "ContrastRow",
    "ContrastSet",
    "Dataset",
    "Message",
    "PairRow",
    "PairSet",
    "Prompt",
    "PromptRow",
    "PromptSet",
    "SPLITS",
    "Split",
    "as_text",
]

Split = Literal["train", "val", "test", "ood"]
"""`train` fits, `val` chooses, `test` scores once; `ood` scores on another kind of text."""

SPLITS: tuple[Split, ...] = get_args(Split)

Text = Annotated[str, Field(min_length=1)]


class Message(Record):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: Text


Prompt = str | tuple[Message, ...]
"""Plain text, or a conversation that goes through the model's chat template."""


def as_text(prompt: Prompt) -> str:
    """A prompt for people to read and for controls that see the text alone: one line per turn, with its role."""
    return prompt if isinstance(prompt, str) else "\n".join(f"{message.role}: {message.content}" for message in prompt)


class _Row(Record):
    """What every row says of itself."""

    group: Text
    """Rows of one group are not independent, and never straddle a split."""
    split: Split


class PromptRow(_Row):
    """One prompt."""

    prompt: Annotated[Prompt, Field(min_length=1)]


class ContrastRow(_Row):
    """One prompt and the class it belongs to."""

    prompt: Annotated[Prompt, Field(min_length=1)]
    label: Literal[0, 1]
    dataset: Text | None = Field(default=None, exclude_if=lambda dataset: dataset is None)
    """The data set that the row was taken from, where a file joins several; None if the file is one."""


class PairRow(_Row):
    """Two prompts that differ in one thing, and the two continuations between which it decides."""

    clean: Text
    corrupted: Text
    answer: Text
    """What the clean prompt calls for."""
    foil: Text
    """What the corrupted prompt calls for."""


class _Set(Record):
    """What the three kinds of set share."""

    name: str
    source: str
    """Where it came from, for people: a file name, `shipped:NAME`, or a Hub id with its revision."""
    rows: tuple[_Row, ...]

    @property
    def groups(self) -> list[str]:
        """The group of each row."""
        return [row.group for row in self.rows]

    def split(self, name: Split) -> Self:
        """The rows of one split, in order; none if it has none.

        Raises:
            UsageError: there is no split of that name.
        """
        if name not in SPLITS:
            raise UsageError(f"no split named '{name}'{nearest(name, SPLITS)}")
        return self.model_copy(update={"rows": tuple(row for row in self.rows if row.split == name)})

    def content(self) -> bytes:
        """These rows as canonical lines, sorted: the same bytes for the same rows in any order, key order or file format."""
        return b"\n".join([self._header(), *sorted(row.canonical() for row in self.rows)])

    def ref(self) -> DataRef:
        """What these rows are, by digest."""
        return DataRef(name=self.name, content=digest_of(self.content()), n_rows=len(self.rows), source=self.source)

    def _header(self) -> bytes:
        return canonical_json({})


class PromptSet(_Set):
    """Prompts without labels."""

    rows: tuple[PromptRow, ...]

    @property
    def prompts(self) -> list[Prompt]:
        """The prompt of each row."""
        return [row.prompt for row in self.rows]


class ContrastSet(_Set):
    """Prompts of two classes."""

    rows: tuple[ContrastRow, ...]
    classes: tuple[str, str]
    """The names of label 0 and label 1."""

    @property
    def prompts(self) -> list[Prompt]:
        """The prompt of each row."""
        return [row.prompt for row in self.rows]

    @property
    def labels(self) -> NDArray[np.int64]:
        """The label of each row, 0 or 1."""
        return np.array([row.label for row in self.rows], dtype=np.int64)

    @property
    def datasets(self) -> list[str]:
        """The names of the data sets that this one joins, sorted; none if no row names one."""
        return sorted({row.dataset for row in self.rows if row.dataset is not None})

    def require_classes(self, *splits: Split, min_groups: int = 1) -> None:
        """Check that each of these splits holds both classes, each in at least `min_groups` groups.

        Raises:
            DataError: one does not; the message names the split, the class and what is there.
        """
        for split in splits:
            part = self.split(split)
            for label, name in enumerate(self.classes):
                n_groups = len({row.group for row in part.rows if row.label == label})
                if n_groups < min_groups:
                    raise DataError(
                        f"{self.source}: split '{split}' needs at least {min_groups} group(s) of class '{name}', "
                        f"got {n_groups}; add rows of it"
                    )

    def _header(self) -> bytes:
        return canonical_json({"classes": list(self.classes)})


class PairSet(_Set):
    """Pairs for patching."""

    rows: tuple[PairRow, ...]

    @property
    def prompts(self) -> list[Prompt]:
        """The clean prompt of each row."""
        return [row.clean for row in self.rows]


Dataset = ContrastSet | PairSet | PromptSet


def texts(prompt: Prompt) -> Iterable[str]:
    """The pieces of text in a prompt, without their roles."""
    return [prompt] if isinstance(prompt, str) else [message.content for message in prompt]

"""Dividing rows among train, val and test without leaks.

1. Groups are divided, not rows: what belongs together stays together.
2. Groups that hold the same labels form a stratum; a stratum is put in an order that depends on the seed and the group's
   name alone, so that the order of the rows cannot matter.
3. Its groups go in turn to train, val, train, test: half, a quarter, a quarter.
"""

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Sequence

from auditgap.data.rows import Prompt, Split, texts

__all__ = ["assign_splits", "default_group"]

TURN: tuple[Split, ...] = ("train", "val", "train", "test")


def default_group(prompt: Prompt) -> str:
    """The group of a row that names none: its text, without the differences that do not make two prompts independent."""
    text = unicodedata.normalize("NFKC", "\n".join(texts(prompt)))
    return " ".join(text.casefold().split()) or "(blank)"


def assign_splits(groups: Sequence[str], labels: Sequence[int | str], *, seed: int) -> list[Split]:
    """A split for each row: half of each stratum's groups to train, a quarter each to val and test."""
    labels_of: defaultdict[str, set[int | str]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        labels_of[group].add(label)
    strata: defaultdict[frozenset[int | str], list[str]] = defaultdict(list)
    for group, held in labels_of.items():
        strata[frozenset(held)].append(group)
    split_of: dict[str, Split] = {}
    for stratum in strata.values():
        for turn, group in enumerate(sorted(stratum, key=lambda group: _draw(seed, group))):
            split_of[group] = TURN[turn % len(TURN)]
    return [split_of[group] for group in groups]


def _draw(seed: int, group: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{group}".encode()).digest()

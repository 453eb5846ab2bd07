"""What the rows of a set owe each other: two classes, no copies, groups that stay in one split, enough of everything."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from auditgap.data.fields import Draft, Kind, Pair
from auditgap.data.rows import Split
from auditgap.errors import DataError

__all__ = ["check_size", "class_names", "duplicates", "misplaced"]

MIN_GROUPS_PER_CLASS = 8
MIN_PAIRS = 2
NEGATIVE_NAMES = frozenset({"harmless", "safe", "benign", "clean", "false", "no", "negative"})


def class_names(drafts: Sequence[Draft], where: str) -> tuple[str, str]:
    """The names of label 0 and label 1."""
    first_line: dict[str, int] = {}
    for draft in drafts:
        first_line.setdefault(str(draft.label), draft.line)
    found = ", ".join(f"'{label}' (line {line})" for label, line in list(first_line.items())[:5])
    if len({type(draft.label) for draft in drafts}) > 1:
        raise DataError(f"{where}: expected labels all numbers or all text, got both: {found}")
    if len({label.strip().casefold() for label in first_line}) < len(first_line):
        raise DataError(f"{where}: labels differ only in case or blanks: {found}; write each class one way")
    if len(first_line) == 1:
        raise DataError(
            f"{where}: expected two classes, got only {found} in {len(drafts)} rows; a contrast needs the other one too"
        )
    if len(first_line) > 2:
        raise DataError(f"{where}: expected exactly two labels, got {len(first_line)}: {found}; keep the two to be contrasted")
    negative, positive = sorted(first_line, key=lambda label: (label.strip().casefold() not in NEGATIVE_NAMES, label))
    return negative, positive


def duplicates(drafts: Sequence[Draft], labels: Sequence[int]) -> Iterable[str]:
    """Which rows repeat an earlier one, and which contradict it."""
    first: dict[object, tuple[Draft, int]] = {}
    for draft, label in zip(drafts, labels, strict=True):
        earlier, earlier_label = first.setdefault(draft.content, (draft, label))
        if earlier is draft:
            continue
        shown = f"{draft.content.clean if isinstance(draft.content, Pair) else draft.content!r:.60}"
        if label != earlier_label:
            yield f"line {draft.line}: the prompt of line {earlier.line} with another label: {shown}; keep the right one"
        else:
            yield f"line {draft.line}: repeats line {earlier.line}: {shown}; keep one, a copy would count as new evidence"


def misplaced(drafts: Sequence[Draft]) -> Iterable[str]:
    """What is wrong with the splits that rows ask for."""
    unset = [draft.line for draft in drafts if draft.split is None]
    if 0 < len(unset) < len(drafts):
        lines = ", ".join(map(str, unset[:10])) + (", ..." if len(unset) > 10 else "")
        yield f"expected a split on every row or on none, got none on {len(unset)} of {len(drafts)} rows: lines {lines}"
    lines_of: defaultdict[str, dict[Split, list[int]]] = defaultdict(dict)
    for draft in drafts:
        if draft.split is not None:
            lines_of[draft.group].setdefault(draft.split, []).append(draft.line)
    for group, by_split in lines_of.items():
        if len(by_split) > 1:
            places = ", ".join(f"{split} (line {', '.join(map(str, lines[:3]))})" for split, lines in by_split.items())
            yield f"group '{group:.60}' is in more than one split: {places}; what belongs together must stay together"


def check_size(drafts: Sequence[Draft], labels: Sequence[int], classes: tuple[str, str], kind: Kind, where: str) -> None:
    if kind == "pairs" and len(drafts) < MIN_PAIRS:
        raise DataError(
            f"{where}: expected at least {MIN_PAIRS} pairs, got {len(drafts)}; nothing can be said of the spread of one"
        )
    if kind != "contrast":
        return
    for label, name in enumerate(classes):
        n_groups = len({draft.group for draft, own in zip(drafts, labels, strict=True) if own == label})
        if n_groups < MIN_GROUPS_PER_CLASS:
            raise DataError(
                f"{where}: expected at least {MIN_GROUPS_PER_CLASS} groups of class '{name}', got {n_groups}; divided "
                "50/25/25 that leaves two in val and two in test, the fewest whose spread can be estimated"
            )

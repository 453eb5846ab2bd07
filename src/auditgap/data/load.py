"""Reading a data file: every row is checked alone, then with the others, before anything is measured on it."""

from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, get_args, overload

from auditgap.data.agreement import check_size, class_names, duplicates, misplaced
from auditgap.data.documents import decode, parse_csv, parse_jsonl, refuse
from auditgap.data.fields import KEYS, Kind, Pair, read_row
from auditgap.data.hub import fetch
from auditgap.data.rows import ContrastRow, ContrastSet, Dataset, PairRow, PairSet, PromptRow, PromptSet, Split
from auditgap.data.split import assign_splits
from auditgap.errors import DataError, UsageError, nearest

__all__ = ["Kind", "load", "shipped"]


def shipped() -> list[str]:
    """The names of the data sets that come with auditgap, for `shipped:NAME`."""
    return sorted(Path(file.name).stem for file in _shipped_folder().iterdir() if file.name.endswith(".jsonl"))


@overload
def load(source: str | Path, kind: Literal["contrast"], *, seed: int = 0) -> ContrastSet: ...
@overload
def load(source: str | Path, kind: Literal["pairs"], *, seed: int = 0) -> PairSet: ...
@overload
def load(source: str | Path, kind: Literal["prompts"], *, seed: int = 0) -> PromptSet: ...
@overload
def load(source: str | Path, kind: Kind, *, seed: int = 0) -> Dataset: ...
def load(source: str | Path, kind: Kind, *, seed: int = 0) -> Dataset:
    """The rows of a `.jsonl` or `.csv` file, of `shipped:NAME`, or of `hub:org/name@revision/path.jsonl`.

    Rows without a split are divided by group into train, val and test (50/25/25), by `seed` and not by their order.
    A contrast file may be read as prompts, divided just as its contrast; its labels are then ignored.

    Raises:
        DataError: the file cannot be read, or rows break the format; the message names up to ten of them by line.
        UsageError: there is no such kind.
    """
    if kind not in KEYS:
        raise UsageError(f"no kind of data named '{kind}'{nearest(kind, get_args(Kind))}")
    name, where, data = _read(str(source))
    problems: list[str] = []
    text = decode(data, where)
    documents = parse_csv(text, KEYS[kind], problems) if where.lower().endswith(".csv") else parse_jsonl(text, problems)
    drafts = [draft for document in documents if (draft := read_row(document, kind, problems)) is not None]
    if problems:
        refuse(where, problems, advice="\nthe format is described in docs/data.md")
    if not drafts:
        raise DataError(f"{where}: expected rows, got none")
    classes = class_names(drafts, where) if kind == "contrast" else ("0", "1")
    labels = [classes.index(str(draft.label)) if kind == "contrast" else 0 for draft in drafts]
    if problems := [*duplicates(drafts, labels), *misplaced(drafts)]:
        refuse(where, problems)
    check_size(drafts, labels, classes, kind, where)
    given: list[Split] = [draft.split for draft in drafts if draft.split is not None]
    splits = given or assign_splits([draft.group for draft in drafts], [draft.label for draft in drafts], seed=seed)
    rows = list(zip(drafts, labels, splits, strict=True))
    if kind == "contrast":
        contrast = (
            ContrastRow.model_validate(
                {"prompt": draft.content, "label": label, "group": draft.group, "split": split, "dataset": draft.dataset}
            )
            for draft, label, split in rows
        )
        return ContrastSet(name=name, source=where, classes=classes, rows=tuple(contrast))
    if kind == "pairs":
        pairs = (
            PairRow(**d.content._asdict(), group=d.group, split=split) for d, _, split in rows if isinstance(d.content, Pair)
        )
        return PairSet(name=name, source=where, rows=tuple(pairs))
    prompts = (PromptRow.model_validate({"prompt": d.content, "group": d.group, "split": split}) for d, _, split in rows)
    return PromptSet(name=name, source=where, rows=tuple(prompts))


def _read(source: str) -> tuple[str, str, bytes]:
    """The set's name, how evidence calls its source (no folders of this machine), and its bytes."""
    if source.startswith("shipped:"):
        name = source.removeprefix("shipped:")
        if name not in shipped():
            raise DataError(f"no shipped data set named '{name}'{nearest(name, shipped())}")
        return name, source, _shipped_folder().joinpath(f"{name}.jsonl").read_bytes()
    if not source.lower().endswith((".jsonl", ".csv")):
        raise DataError(
            f"expected a .jsonl or .csv file, 'hub:org/name@revision/path.jsonl' or 'shipped:NAME', got '{source}'; "
            f"shipped sets: {', '.join(shipped())}"
        )
    if source.startswith("hub:"):
        return Path(source).stem, source, fetch(source).read_bytes()
    path = Path(source)
    try:
        return path.stem, path.name, path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read '{source}': {error.strerror or error}; check the path and its permissions") from None


def _shipped_folder() -> Traversable:
    return resources.files("auditgap.data").joinpath("shipped")

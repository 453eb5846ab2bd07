"""From the mapping of one row to its fields, each checked; what is wrong is collected, with its line, field and value."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from auditgap.data.documents import Document
from auditgap.data.rows import SPLITS, Message, Prompt, Split
from auditgap.data.split import default_group
from auditgap.errors import nearest
from auditgap.records import DataKind

__all__ = ["KEYS", "Draft", "Kind", "Pair", "read_row"]

Kind = DataKind

KEYS: Mapping[Kind, tuple[str, ...]] = {
    "contrast": ("prompt", "messages", "label", "group", "split", "dataset"),
    "pairs": ("clean", "corrupted", "answer", "foil", "group", "split"),
    "prompts": ("prompt", "messages", "label", "group", "split", "dataset"),
}

ROLES: tuple[Literal["system", "user", "assistant"], ...] = ("system", "user", "assistant")


class Pair(NamedTuple):
    """The content of a row of a patching set."""

    clean: str
    corrupted: str
    answer: str
    foil: str


class Draft(NamedTuple):
    """A row whose own fields are sound; how it sits with the other rows is not known yet."""

    line: int
    content: Prompt | Pair
    label: int | str
    """As written. It makes the strata; only a contrast set reads more into it."""
    group: str
    split: Split | None
    dataset: str | None
    """Where several data sets were joined, the one that the row comes from."""


def read_row(document: Document, kind: Kind, problems: list[str]) -> Draft | None:
    """The row, or None after adding what is wrong with it to `problems`."""
    found: list[str] = []
    fields = document.fields
    content: Prompt | Pair | None = None
    if other := _other_kind(fields, kind):
        found.append(f"expected the keys {', '.join(KEYS[kind])}, got {', '.join(fields)}, as in a file of {other}")
    else:
        found.extend(f"unknown key '{key}'{nearest(key, KEYS[kind])}" for key in fields if key not in KEYS[kind])
        content = _pair(fields, found) if kind == "pairs" else _prompt(fields, found)
    label = _label(fields, found) if kind == "contrast" and not other else str(fields.get("label", ""))
    group = _text(fields, "group", found) if "group" in fields else None
    split = _split(fields["split"], found) if "split" in fields else None
    dataset = _text(fields, "dataset", found) if "dataset" in fields else None
    if found or content is None or label is None:
        problems.append(f"line {document.line}: {'; '.join(found)}")
        return None
    prompt = content.clean if isinstance(content, Pair) else content
    return Draft(document.line, content, label, group or default_group(prompt), split, dataset)


def _other_kind(fields: Mapping[str, object], kind: Kind) -> Kind | None:
    """The kind whose keys these are, if they cannot be meant as this one."""
    return next((other for other, keys in KEYS.items() if set(fields) <= set(keys) and not set(fields) <= set(KEYS[kind])), None)


def _prompt(fields: Mapping[str, object], found: list[str]) -> Prompt | None:
    if "prompt" in fields and "messages" in fields:
        found.append("expected 'prompt' or 'messages', got both")
        return None
    if "messages" not in fields:
        return _text(fields, "prompt", found)
    written = fields["messages"]
    if not isinstance(written, list) or not written:
        found.append(f"messages: expected a list of at least one {{'role', 'content'}}, got {written!r:.60}")
        return None
    messages = [_message(item, index, found) for index, item in enumerate(written)]
    return tuple(message for message in messages if message is not None)


def _message(item: object, index: int, found: list[str]) -> Message | None:
    where = f"messages[{index}]"
    if not isinstance(item, dict) or set(item) != {"role", "content"}:
        found.append(f"{where}: expected {{'role', 'content'}}, got {item!r:.60}")
        return None
    content = _text(item, "content", found, where=f"{where}.")
    for role in ROLES:
        if role == item["role"]:
            return Message(role=role, content=content) if content else None
    found.append(f"{where}.role: expected one of {', '.join(ROLES)}, got {item['role']!r:.60}")
    return None


def _pair(fields: Mapping[str, object], found: list[str]) -> Pair | None:
    clean, corrupted = _text(fields, "clean", found), _text(fields, "corrupted", found)
    answer, foil = _text(fields, "answer", found, blank=True), _text(fields, "foil", found, blank=True)
    if clean is None or corrupted is None or answer is None or foil is None:
        return None
    if clean == corrupted:
        found.append("corrupted: expected another prompt than clean, got the same; nothing would be patched")
    if answer == foil:
        found.append(f"foil: expected another continuation than answer, got {foil!r:.60} twice; their difference is always 0")
    return Pair(clean, corrupted, answer, foil)


def _label(fields: Mapping[str, object], found: list[str]) -> int | str | None:
    if "label" not in fields:
        found.append("missing key 'label'")
        return None
    label = fields["label"]
    if isinstance(label, str):
        return _text(fields, "label", found)
    if isinstance(label, int) and not isinstance(label, bool) and label in (0, 1):
        return label
    found.append(f"label: expected 0, 1 or text, got {label!r:.60}")
    return None


def _split(written: object, found: list[str]) -> Split | None:
    for split in SPLITS:
        if split == written:
            return split
    found.append(f"split: expected one of {', '.join(SPLITS)}, got {written!r:.60}")
    return None


def _text(fields: Mapping[str, object], key: str, found: list[str], *, where: str = "", blank: bool = False) -> str | None:
    if key not in fields:
        found.append(f"missing key '{where}{key}'")
        return None
    value = fields[key]
    if not isinstance(value, str):
        found.append(f"{where}{key}: expected text, got {value!r:.60}")
        return None
    if not value or (not blank and not value.strip()):
        found.append(f"{where}{key}: expected text, got {'an empty string' if not value else 'only blanks'}")
        return None
    if any("\ud800" <= character <= "\udfff" for character in value):
        found.append(f"{where}{key}: expected Unicode text, got half of a surrogate pair")
        return None
    return value

"""YAML read strictly: one meaning per file, or a refusal that names the file, the item and the field.

Refused, because each can make two readers see two files: a key given twice, a key that is not text (`on:`, `1.0:`), an alias.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_args

import yaml
from pydantic import ValidationError
from yaml.constructor import ConstructorError

from auditgap.errors import PlanError, nearest
from auditgap.records import Record

__all__ = ["by_id", "parse", "read"]


class _Identified(Protocol):
    @property
    def id(self) -> str: ...


R = TypeVar("R", bound=Record)
Item = TypeVar("Item", bound=_Identified)
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same documents; in C where libyaml is there
_NAMES = ("id", "duty", "name")  # the keys by which an item of a list is called in messages


class _Strict(_Loader):
    """The safe loader without duplicate keys and keys other than text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConstructorError(None, None, f"expected a text key, got {key!r}; put it in quotes", key_node.start_mark)
            if key in seen:
                raise ConstructorError(None, None, f"key '{key}' is given twice; keep one", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def read(path: Path) -> object:
    """The parsed document, as plain lists, mappings and scalars.

    Raises:
        PlanError: the file cannot be read, is not YAML, or could be read in two ways; the message gives the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
        alias = _alias(text)
        document = None if alias else yaml.load(text, Loader=_Strict)
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: expected a readable UTF-8 file, got: {error}; check the path") from None
    except yaml.MarkedYAMLError as error:
        line = f" (line {error.problem_mark.line + 1})" if error.problem_mark else ""
        raise PlanError(f"{path}{line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise PlanError(f"{path}: expected YAML, got: {error}") from None
    if alias:
        raise PlanError(f"{path} (line {alias[1]}): alias '*{alias[0]}' is not allowed; write the value out")
    return document


def _alias(text: str) -> tuple[str, int] | None:
    """Name and line of the first alias: a value written in one place and read in another."""
    if "*" not in text:
        return None
    events = yaml.parse(text, Loader=_Loader)
    return next(((str(e.anchor), e.start_mark.line + 1) for e in events if isinstance(e, yaml.AliasEvent) and e.start_mark), None)


def parse(path: Path, record: type[R]) -> R:
    """Read a file as one record.

    Raises:
        PlanError: as `read`, or a field is unknown (the nearest name is given), missing, or of the wrong kind.
    """
    document = read(path)
    if not isinstance(document, Mapping):
        fields = ", ".join(record.model_fields)
        raise PlanError(f"{path}: expected a mapping with the fields {fields}, got {type(document).__name__}")
    try:
        return record.model_validate_json(json.dumps(document, default=str))
    except ValidationError as error:
        clauses = [_clause(item["type"], item["loc"], item["msg"], document, record) for item in error.errors(include_url=False)]
        raise PlanError(f"{path}: {'; '.join(clauses)}") from None


def by_id(path: Path, items: Iterable[Item]) -> dict[str, Item]:
    """Items by id, in the order given.

    Raises:
        PlanError: an id is used twice.
    """
    found: dict[str, Item] = {}
    for item in items:
        if item.id in found:
            raise PlanError(f"{path}: id '{item.id}' is used twice; rename one")
        found[item.id] = item
    return found


def _clause(kind: str, loc: tuple[int | str, ...], message: str, document: object, record: type[Record]) -> str:
    """One complaint: where (items by id), what, what was there, and the nearest known field."""
    parts, node = [], document
    for key in loc:
        node = _step(node, key)
        name = next((node[k] for k in _NAMES if k in node), key) if isinstance(key, int) and isinstance(node, Mapping) else key
        parts.append(str(name))
    where = ".".join(parts) or "the file"
    if kind == "extra_forbidden":
        return f"{where}: unknown field{nearest(str(loc[-1]), _record_at(record, loc[:-1]).model_fields)}"
    if kind == "missing":
        return f"{where}: this field is required"
    got = f" (got {node!r:.80})" if loc and not isinstance(node, Mapping | list) else ""
    return f"{where}: {message.removeprefix('Value error, ')}{got}"


def _step(node: object, key: int | str) -> object:
    """One level down a parsed document; None where there is nothing."""
    if isinstance(node, Mapping):
        return node.get(key)
    return node[key] if isinstance(node, list) and isinstance(key, int) and key < len(node) else None


def _record_at(record: type[Record], loc: Iterable[int | str]) -> type[Record]:
    """The record class that a path of field names and indices leads to."""
    for key in loc:
        if key in record.model_fields:
            record = _record_in(record.model_fields[str(key)].annotation) or record
    return record


def _record_in(annotation: object) -> type[Record] | None:
    """The first record class inside an annotation such as `tuple[Pin, ...]` or `dict[Axis, Pin]`."""
    if isinstance(annotation, type) and not get_args(annotation) and issubclass(annotation, Record):
        return annotation
    return next((found for part in get_args(annotation) if (found := _record_in(part))), None)

"""The base of everything that crosses disk, network or a signature.

A record is frozen, strict and closed: unknown fields, NaN and silent coercions are refused. It has two JSON forms from one
definition: numbers for people (`model_dump_json`), and decimal strings in signed bytes (`canonical`), because float printing
differs between languages and a hash must not.

A field that is added to a signed record later carries `exclude_if` its default: what was signed before keeps its bytes.
"""

import datetime as dt
import hashlib
import json
from typing import Annotated, Any, Self

import rfc8785
from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, StringConstraints, ValidationError
from pydantic_core.core_schema import SerializationInfo

from auditgap.errors import PlanError

__all__ = ["Date", "Digest", "Number", "Record", "UtcTime", "canonical_json", "digest_of", "explain", "now"]

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
"""`sha256:` and 64 lower-case hexadecimal digits."""


def _parse_number(value: object) -> object:
    return float(value) if isinstance(value, str | int) and not isinstance(value, bool) else value


def _print_number(value: float, info: SerializationInfo) -> float | str:
    return repr(value) if info.context == "canonical" else value


Number = Annotated[float, BeforeValidator(_parse_number), PlainSerializer(_print_number)]
"""A finite float: a JSON number for people, a shortest round-trip decimal string in signed bytes."""

UtcTime = Annotated[dt.datetime, PlainSerializer(lambda t: t.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), when_used="json")]
"""A point in time, printed as `2026-11-21T08:00:00Z`."""

Date = dt.date


class Record(BaseModel):
    """A frozen, strict, closed pydantic model; see the module docstring."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    def canonical(self) -> bytes:
        """RFC 8785 bytes of this record: what is signed and hashed."""
        return rfc8785.dumps(self.model_dump(mode="json", context="canonical"))

    def digest(self) -> str:
        """`sha256:...` of the canonical bytes."""
        return digest_of(self.canonical())

    @classmethod
    def parse(cls, document: object, *, where: str) -> Self:
        """Read a record from parsed JSON or YAML.

        Raises:
            PlanError: a field is unknown, missing or of the wrong type; the message names `where` and each field.
        """
        try:
            return cls.model_validate_json(json.dumps(document, default=str))
        except ValidationError as error:
            raise PlanError(f"{where}: {explain(error, cls)}") from None


def explain(error: ValidationError, record: type[BaseModel]) -> str:
    """Pydantic's complaints, one clause per field, with the known fields where one was unknown."""
    clauses = []
    for item in error.errors(include_url=False):
        path = ".".join(str(part) for part in item["loc"]) or record.__name__
        got = "" if item["type"] in ("missing", "extra_forbidden") else f" (got {item['input']!r:.80})"
        clauses.append(f"{path}: {item['msg']}{got}")
    if any(item["type"] == "extra_forbidden" and len(item["loc"]) == 1 for item in error.errors()):
        clauses.append(f"known fields: {', '.join(record.model_fields)}")
    return "; ".join(clauses)


def canonical_json(value: Any) -> bytes:
    """RFC 8785 bytes of a plain JSON value."""
    return rfc8785.dumps(value)


def digest_of(data: bytes) -> str:
    """`sha256:` and the hex digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def now() -> dt.datetime:
    """The current time in UTC, to the second."""
    return dt.datetime.now(dt.UTC).replace(microsecond=0)

"""Secrets never enter a manifest: environment variables as keyed hashes, and configuration that holds one is refused."""

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from pathlib import Path

from pydantic import JsonValue

from auditgap.errors import DataError, PlanError
from auditgap.release.capture.declaration import Environment
from auditgap.release.capture.files import read_bytes

__all__ = ["environment_key", "keyed", "no_secrets"]

MIN_KEY_BYTES = 16
_SECRET_NAME = re.compile(
    r"(passw(or)?d|passphrase|secret|credential|private[_-]?key|api[_-]?key|(access|auth|bearer|refresh)[_-]?token|^token$"
    r"|authorization$)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"\b(sk-[\w-]{16,}|gh[pousr]_\w{20,}|AKIA[0-9A-Z]{16}|xox[abp]-[\w-]{10,}|Bearer\s+[\w.+/=-]{12,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY"
)
_REFERENCE = re.compile(r"^(env:\w+|\$\w+|\$\{\w+\}|withheld)$")  # the model proxy writes `withheld` itself


def environment_key(declared: Environment, folder: Path, environ: Mapping[str, str] = os.environ) -> bytes:
    """The key under which environment values are hashed.

    Raises:
        PlanError: not exactly one place is named, or the key is too short or is one of the variables itself.
    """
    if (declared.key_file is None) == (declared.key_variable is None):
        raise PlanError("environment: expected exactly one of key_file and key_variable; values are kept only under a key")
    if declared.key_variable is not None:
        if declared.key_variable in declared.names:
            raise PlanError(f"environment: {declared.key_variable} holds the key and cannot be captured under it; leave it out")
        key, where = environ.get(declared.key_variable, "").encode(), f"variable {declared.key_variable}"
    else:
        path = folder / str(declared.key_file)
        key, where = read_bytes(path).strip(), str(path)
    if len(key) < MIN_KEY_BYTES:
        raise PlanError(f"environment: expected a key of at least {MIN_KEY_BYTES} bytes in {where}, got {len(key)}")
    return key


def keyed(name: str, value: str | None, key: bytes) -> dict[str, JsonValue]:
    """One variable: whether it is set, and its HMAC-SHA-256 under the key.

    The name goes into the hash, so two variables with one value do not show it. `key` is a check value: hashes under different
    keys cannot be compared.
    """

    def sign(message: str) -> str:
        return hmac.new(key, message.encode(), hashlib.sha256).hexdigest()

    return {"key": sign("auditgap.dev/environment-key")[:16], "value": None if value is None else sign(f"{name}\0{value}")}


def no_secrets(value: JsonValue, *, where: str) -> None:
    """Refuse configuration that holds a secret in the clear; a reference such as `${API_KEY}` is none.

    Raises:
        DataError: a key is called like a secret and holds text, or text looks like one. The message does not repeat it.
    """
    match value:
        case dict():
            for key, item in value.items():
                if _SECRET_NAME.search(key) and isinstance(item, str) and item and not _REFERENCE.match(item):
                    raise DataError(
                        f"{where}.{key}: looks like a secret in the clear; write ${{NAME}} here and list NAME under environment"
                    )
                no_secrets(item, where=f"{where}.{key}")
        case list():
            for index, item in enumerate(value):
                no_secrets(item, where=f"{where}[{index}]")
        case str() if _SECRET_VALUE.search(value):
            raise DataError(f"{where}: looks like a secret in the clear; write ${{NAME}} here and list NAME under environment")

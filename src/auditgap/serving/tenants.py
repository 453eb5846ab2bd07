"""Who may ask, and how much: one line per tenant, in which a token is only a salted hash.

    alice:sha256$SALT$HASH requests_per_minute=60 verdicts=yes

1. A token is 256 random bits, so one round of SHA-256 over salt and token is enough: there is nothing to guess.
2. Every line is compared in constant time and none is left out, so that time does not say which line was near.
3. Limits are per tenant and kept per tenant; no tenant can use up what is another's, but for the model's own time.
"""

import hashlib
import hmac
import secrets
import stat
import time
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from auditgap.errors import PlanError, UsageError
from auditgap.records import Record
from auditgap.records.base import explain

__all__ = ["ANONYMOUS", "Tenant", "Usage", "authenticate", "load_tenants", "new_tenant"]

_FLAGS = {"yes": True, "no": False}


class Tenant(Record):
    """One line of the file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]{0,63}$")
    token: str = Field(pattern=r"^sha256\$[0-9a-f]{32}\$[0-9a-f]{64}$")
    """Salt and hash."""
    requests_per_minute: int = Field(default=600, ge=1, le=1_000_000)
    """On average; as many may come at once."""
    concurrent: int = Field(default=16, ge=1, le=10_000)
    """Requests that wait or run."""
    max_body_bytes: int = Field(default=1 << 20, ge=1, le=64 << 20)
    max_prompt_tokens: int = Field(default=8192, ge=1)
    max_new_tokens: int = Field(default=1024, ge=1, le=65_536)
    verdicts: bool = False
    """May see what the monitors say of its own requests."""
    operator: bool = False
    """May read the metrics, which are of all tenants together."""


ANONYMOUS = Tenant(
    name="anonymous",
    token=f"sha256${'0' * 32}${'0' * 64}",
    requests_per_minute=1_000_000,
    concurrent=10_000,
    verdicts=True,
    operator=True,
)
"""Everybody, where authentication is off: only this machine can reach the server then."""


def new_tenant(name: str) -> tuple[str, str]:
    """A new token, and the line of the file that knows it; the token is in no file.

    Raises:
        UsageError: the name is not one.
    """
    token, salt = f"ag-{secrets.token_urlsafe(32)}", secrets.token_hex(16)
    try:
        tenant = Tenant(name=name, token=f"sha256${salt}${_hash(salt, token)}")
    except ValidationError:
        raise UsageError(f"expected a name of letters, digits, '_', '.' and '-', got {name!r:.80}") from None
    return token, f"{tenant.name}:{tenant.token}"


def load_tenants(path: Path) -> tuple[Tenant, ...]:
    """The tenants of a file; blank lines and lines that begin with `#` are skipped.

    Raises:
        UsageError: the file cannot be read, others may write it, or it names nobody.
        PlanError: a line is malformed, or two have one name; the message names the line.
    """
    try:
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UsageError(f"{path}: others may write it, and so let themselves in; run 'chmod 600 {path}'")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"expected a file of tokens, got {path} ({error}); make a line for it with 'auditgap monitor token NAME'"
        ) from None
    found: dict[str, Tenant] = {}
    for number, line in enumerate(lines, start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            tenant = _parse(line, f"{path}: line {number}")
            if tenant.name in found:
                raise PlanError(f"{path}: line {number}: the name '{tenant.name}' is given twice")
            found[tenant.name] = tenant
    if not found:
        raise UsageError(f"{path}: expected at least one tenant, got none; make a line with 'auditgap monitor token NAME'")
    return tuple(found.values())


def authenticate(tenants: Sequence[Tenant], header: str | None) -> Tenant | None:
    """Whose token an `Authorization` header holds; None if it is nobody's."""
    scheme, _, token = (header or "").partition(" ")
    found = None
    for tenant in tenants:
        _, salt, expected = tenant.token.split("$")
        if hmac.compare_digest(_hash(salt, token.strip()), expected):
            found = tenant
    return found if scheme.lower() == "bearer" else None


class Usage:
    """What one tenant uses now: requests under way, and a bucket of requests that fills evenly over a minute."""

    def __init__(self, tenant: Tenant) -> None:
        self.tenant = tenant
        self.n_running = 0
        self._left = float(tenant.requests_per_minute)
        self._at = time.monotonic()

    def wait_s(self) -> float:
        """0 if one more request may come, which is then counted; else in how many seconds it may."""
        now, limit = time.monotonic(), self.tenant.requests_per_minute
        self._left, self._at = min(limit, self._left + (now - self._at) * limit / 60), now
        if self._left < 1:
            return (1 - self._left) * 60 / limit
        self._left -= 1
        return 0.0


def _hash(salt: str, token: str) -> str:
    return hashlib.sha256(bytes.fromhex(salt) + token.encode("utf-8", "surrogateescape")).hexdigest()


def _parse(line: str, where: str) -> Tenant:
    head, *settings = line.split()
    name, _, token = head.partition(":")
    fields: dict[str, object] = {"name": name, "token": token}
    for setting in settings:
        key, _, value = setting.partition("=")
        fields[key] = int(value) if value.isdecimal() and value.isascii() else _FLAGS.get(value, value)
    try:
        return Tenant.model_validate(fields)
    except ValidationError as error:
        raise PlanError(f"{where}: {explain(error, Tenant)}") from None

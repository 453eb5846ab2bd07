"""What can go wrong, and the exit code that says so.

    AuditgapError
    |- UsageError              2  the call is wrong: unknown name, bad key, option out of range
    |   |- PlanError           2  a plan, policy, framework or crosswalk file does not say what it must
    |   |- DataError           2  a data set breaks its format; the message names the rows
    |   `- RegistrationError   2  the run does not match what was registered before it
    |- SubjectError            3  the model cannot be opened or read safely (pickle, remote code, NaN, missing files)
    |   `- SiteError           3  the architecture is not understood well enough to measure it
    |- CannotMeasure           3  an instrument's precondition fails on this subject and data
    |- StoreError              3  the store cannot be read or written (permissions, newer version, disk full)
    `- EvidenceInvalid         4  a signature, digest or proof does not hold

Every message says what was expected, what was got and what to do next.
"""

import difflib
from collections.abc import Iterable

__all__ = [
    "AuditgapError",
    "CannotMeasure",
    "DataError",
    "EvidenceInvalid",
    "PlanError",
    "RegistrationError",
    "SiteError",
    "StoreError",
    "SubjectError",
    "UsageError",
    "nearest",
]


class AuditgapError(Exception):
    """Base of every error that auditgap raises on purpose."""

    exit_code = 3


class UsageError(AuditgapError, ValueError):
    """The caller asked for something that does not exist or does not fit."""

    exit_code = 2


class PlanError(UsageError):
    """A YAML file that steers the audit (plan, policy, framework, crosswalk) is malformed."""


class DataError(UsageError):
    """A data set breaks its format; the message names the rows."""


class RegistrationError(UsageError):
    """A run differs from the registration that was signed before it."""


class SubjectError(AuditgapError):
    """The model cannot be opened safely."""


class SiteError(SubjectError):
    """A residual site could not be found or does not behave as its name says."""


class CannotMeasure(AuditgapError):
    """An instrument's precondition does not hold, so any number it gave would mislead."""


class StoreError(AuditgapError):
    """The evidence store cannot be read or written."""


class EvidenceInvalid(AuditgapError):
    """A signature, digest, registration or Merkle proof does not hold."""

    exit_code = 4


def nearest(name: str, known: Iterable[str]) -> str:
    """` - did you mean 'x'?` for the closest known name, else the full list; for the end of an error message."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f" - did you mean '{close[0]}'?" if close else f"; known: {', '.join(known) or 'none'}"

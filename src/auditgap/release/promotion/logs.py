"""The event stream of a canary run as a check: everything that was asked was read and answered, and nothing was injected."""

from collections import Counter
from pathlib import Path

from auditgap.errors import PlanError
from auditgap.records import Digest, digest_of, now
from auditgap.records.promotion import ReleaseCheck
from auditgap.release.capture import read_manifest
from auditgap.release.capture.files import read_bytes
from auditgap.release.events import Event, EventKind, read_events

__all__ = ["check_log", "check_log_file"]

_ANSWER: dict[EventKind, EventKind] = {"call": "result", "model_request": "model_response"}
_NO_ANSWER = ("client_left", "disconnected", "timeout", "too_large", "unanswered", "upstream_failed", "upstream_timeout")


def check_log(events: tuple[Event, ...], *, name: str, manifest: Digest, content: Digest) -> ReleaseCheck:
    """What the stream shows. failed: a request passed unread or had no answer; inconclusive: nothing was asked, or faults fired.

    Args:
        events: of one run, in order.
        name: of the check, as a promotion policy asks for it.
        manifest: fingerprint of the release that ran.
        content: digest of the stream's file.
    """
    counts = Counter(event.kind for event in events)
    unread = sum(event.kind == "model_request" and event.outcome == "unreadable" for event in events)
    n_open, asked, fired = _n_unanswered(events), counts["call"] + counts["model_request"], counts["fault_fired"]
    undecided = not asked or fired
    verdict = "failed" if unread or n_open else "inconclusive" if undecided else "passed"
    said = f"{asked} calls and requests, {n_open} without an answer, {unread} that could not be read, {fired} faults injected."
    return ReleaseCheck(
        kind="release-log", name=name, manifest=manifest, verdict=verdict, summary=said, content=content, finished_at=now()
    )


def check_log_file(path: Path, manifest: Path, *, name: str) -> ReleaseCheck:
    """As `check_log`, of a file, for the release of a manifest.

    Raises:
        PlanError, DataError: a file is not what it should be.
    """
    data = read_bytes(path)
    try:
        events = read_events(path)
    except ValueError as error:
        raise PlanError(f"{path}: expected an event stream, got: {error}") from None
    return check_log(events, name=name, manifest=read_manifest(manifest).fingerprint(), content=digest_of(data))


def _n_unanswered(events: tuple[Event, ...]) -> int:
    """Calls and requests that nothing followed, counted by id: ids may come again in another session."""
    asked = Counter((_ANSWER[event.kind], event.call_id) for event in events if event.kind in _ANSWER)
    answered = Counter((event.kind, event.call_id) for event in events if event.outcome not in _NO_ANSWER)
    return (asked - answered).total()

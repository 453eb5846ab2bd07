"""Two releases from what they left behind: two integrity runs, or two event streams.

An integrity run counts adherence states per case; a stream also shows which control spoke when, so its sessions are clustered
too, and each of the two comparisons has half of alpha.
"""

import json
from pathlib import Path

from auditgap.errors import PlanError, UsageError
from auditgap.records import Record
from auditgap.records.integrity import IntegrityRun
from auditgap.release.diagnostics.adherence import (
    AdherenceShift,
    Finding,
    Match,
    ScriptedMove,
    compare_adherence,
    compare_scripted,
    vectors_of_run,
    vectors_of_sessions,
)
from auditgap.release.diagnostics.clusters import ClusterShift, compare_clusters
from auditgap.release.diagnostics.signatures import signatures
from auditgap.release.events import Event, read_events

__all__ = ["Diagnosis", "diagnose", "diagnose_files", "read_run_or_stream"]


class Diagnosis(Record):
    """What the comparison of two releases came to."""

    verdict: Finding
    """The gravest of what follows; `inconclusive` if nothing moved and something could not be said."""
    says: tuple[str, ...]
    """One sentence per comparison."""
    adherence: AdherenceShift | None = None
    """Of live runs or recorded sessions."""
    scripted: tuple[ScriptedMove, ...] | None = None
    """Cases whose scripted calls end in other states; None if no scripted case was run in both."""
    clusters: ClusterShift | None = None


def diagnose(
    before: IntegrityRun | tuple[Event, ...],
    after: IntegrityRun | tuple[Event, ...],
    *,
    alpha: float = 0.05,
    margin: float = 0.1,
    match: Match = "stimulus",
    seed: int = 0,
) -> Diagnosis:
    """Whether unsafe actions get further, or other incidents occur, in the later release.

    Raises:
        UsageError: a run against a stream, nothing that both releases ran, a stream without intents, or alpha or margin outside
            (0, 1).
    """
    if isinstance(before, IntegrityRun) and isinstance(after, IntegrityRun):
        return _of_runs(before, after, alpha=alpha, margin=margin, seed=seed)
    if isinstance(before, IntegrityRun) or isinstance(after, IntegrityRun):
        raise UsageError("expected two integrity runs or two event streams, got one of each; they count different things")
    old, new = signatures(before), signatures(after)
    shift = compare_adherence(
        *(vectors_of_sessions(found, match=match) for found in (old, new)), alpha=alpha / 2, margin=margin, seed=seed
    )
    clusters = compare_clusters(old, new, alpha=alpha / 2)
    verdict = "alarm" if clusters.alarm else "moved" if clusters.risen or clusters.fallen else shift.verdict
    risen, fallen = (", ".join(names) or "none" for names in (clusters.risen, clusters.fallen))
    return Diagnosis(
        verdict=_gravest([shift.verdict, verdict]),
        says=(f"adherence: {shift.says}", f"incidents: more frequent {risen}; less frequent {fallen}"),
        adherence=shift,
        clusters=clusters,
    )


def diagnose_files(
    before: str | Path,
    after: str | Path,
    *,
    alpha: float = 0.05,
    margin: float = 0.1,
    match: Match = "stimulus",
    seed: int = 0,
) -> Diagnosis:
    """As `diagnose`, from files.

    Raises:
        UsageError: as `diagnose`; or a file cannot be read.
        PlanError: a file is neither an integrity run nor an event stream.
    """
    found = [read_run_or_stream(path) for path in (before, after)]
    return diagnose(found[0], found[1], alpha=alpha, margin=margin, match=match, seed=seed)


def read_run_or_stream(path: str | Path) -> IntegrityRun | tuple[Event, ...]:
    """An integrity run (one JSON object over the whole file) or an event stream (one event a line).

    Raises:
        UsageError: the file cannot be read.
        PlanError: it is neither.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"expected a file of JSON, got {path}: {error}") from None
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if isinstance(document, dict) and "results" in document:
        return IntegrityRun.parse(document, where=str(path))
    try:
        return read_events(path)
    except PlanError as error:
        raise PlanError(
            f"{path}: expected an integrity run ('auditgap release test --json') or an event stream (an event a line); {error}"
        ) from None


def _of_runs(before: IntegrityRun, after: IntegrityRun, *, alpha: float, margin: float, seed: int) -> Diagnosis:
    live, scripted = ([vectors_of_run(run, mode=mode) for run in (before, after)] for mode in ("live", "scripted"))
    shift = compare_adherence(*live, alpha=alpha, margin=margin, seed=seed) if set(live[0]) & set(live[1]) else None
    n_cases = len(set(scripted[0]) & set(scripted[1]))
    if shift is None and not n_cases:
        raise UsageError(
            "expected cases that both runs ran, in the same mode and unchanged, got none; run the same suite against both"
        )
    moves = compare_scripted(*scripted) if n_cases else None
    verdicts: list[Finding] = [shift.verdict] if shift else []
    says = [f"live: {shift.says}"] if shift else []
    if moves is not None:
        n_alarms = sum(move.alarm for move in moves)
        verdicts.append("alarm" if n_alarms else "moved" if moves else "no shift")
        says.append(f"scripted: {len(moves)} of {n_cases} cases end in other states, {n_alarms} of them further downstream")
    return Diagnosis(verdict=_gravest(verdicts), says=tuple(says), adherence=shift, scripted=moves)


def _gravest(
    verdicts: list[Finding],
) -> Finding:
    for verdict in ("alarm", "moved", "inconclusive"):
        if verdict in verdicts:
            return verdict
    return "no shift"

"""What a user brings forward for the differences: evidence made anew, equivalence tests, waivers. Each is bound to one change.

1. A waiver names the change by its digest, so it covers this change and no later one of the same component, until its day.
2. Evidence is named by the digest of its signed statement. It must be in the store, valid, in date and not refuted, and its
   registration must name the release it was measured on: `references.release` is the fingerprint.
3. An equivalence test takes its counts from two signed statements, and its margin from a threshold on `<behaviour>.shift` in the
   registration of the later one: signed before that was run.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from auditgap.evidence import Store
from auditgap.governance import Judged
from auditgap.governance.document import parse
from auditgap.governance.judged import problems
from auditgap.records import Date, Digest, Measured, Record, now
from auditgap.records.manifest import ReleaseManifest
from auditgap.records.parity import Coverage, Delta, Equivalence, Parity, ReEvaluated, Uncovered, Waived
from auditgap.release.capture import read_manifest
from auditgap.release.parity.diff import diff, n_identical
from auditgap.release.parity.equivalence import equivalence

__all__ = ["Brought", "EquivalenceBrought", "EvidenceBrought", "WaiverBrought", "judge_files", "judge_parity", "load_coverage"]

MAX_WAIVER = dt.timedelta(days=366)


class WaiverBrought(Record):
    """A named person accepts one change."""

    kind: Literal["waiver"] = "waiver"
    change: Digest
    """`Delta.change()`; `auditgap release diff` prints it."""
    approver: str = Field(min_length=1)
    reason: str = Field(min_length=1)
    expires: Date


class EvidenceBrought(Record):
    """Behaviour was measured again on the later release."""

    kind: Literal["evidence"] = "evidence"
    change: Digest
    evidence: tuple[Digest, ...] = Field(min_length=1)


class EquivalenceBrought(Record):
    """Behaviour is as frequent as before."""

    kind: Literal["equivalence"] = "equivalence"
    change: Digest
    behaviour: str
    """Name of a measurement of unit `rate` in both statements."""
    before: Digest
    after: Digest


Releases = tuple[Digest, Digest]
"""Fingerprints before and after."""

One = Annotated[WaiverBrought | EvidenceBrought | EquivalenceBrought, Field(discriminator="kind")]


class Brought(Record):
    """A coverage file."""

    format: Literal["auditgap.dev/release-coverage/v1"] = "auditgap.dev/release-coverage/v1"
    covers: tuple[One, ...] = ()


_NOTHING = Brought()


def load_coverage(path: str | Path) -> Brought:
    """Read a coverage file.

    Raises:
        PlanError: it cannot be read, or a field is unknown, missing or of the wrong kind.
    """
    return parse(Path(path), Brought)


def judge_parity(
    before: ReleaseManifest,
    after: ReleaseManifest,
    brought: Brought = _NOTHING,
    *,
    today: Date,
    held: Sequence[Judged] = (),
) -> Parity:
    """The differences with what covers each, and whether the later release is held back.

    `held` is the verified evidence of a store; without it, evidence and equivalence tests cover nothing.

    Raises:
        UsageError: the manifests are of different kinds.
    """
    found, store = diff(before, after), {judged.digest: judged for judged in held}
    releases = (before.fingerprint(), after.fingerprint())
    deltas = tuple(
        d.model_copy(update={"coverage": _covered(d, brought, releases, store, today)}) if d.needs_coverage else d for d in found
    )
    identical = n_identical(before, after, found)
    return Parity.of(deltas, before=releases[0], after=releases[1], judged_on=today, n_identical=identical)


def judge_files(
    before: str | Path,
    after: str | Path,
    *,
    waivers: str | Path | None = None,
    store: str | Path | None = None,
    today: Date | None = None,
) -> Parity:
    """As `judge_parity`, from files and a store; `today` defaults to the current day.

    Raises:
        PlanError, DataError: a file cannot be read or is of another version.
        StoreError, EvidenceInvalid: the store cannot be read, or a signature does not hold.
    """
    manifests = read_manifest(before), read_manifest(after)
    brought = load_coverage(waivers) if waivers else Brought()
    return judge_parity(*manifests, brought, today=today or now().date(), held=_held(store) if store else ())


def _held(store: str | Path) -> list[Judged]:
    """All evidence of a store, its signatures checked."""
    with Store.open(store, create=False) as opened:
        registrations = {s.digest: s.record for s in opened.registrations()}
        return [Judged(s.digest, s.record, registrations[s.record.registration], s.keyid) for s in opened.evidence()]


def _covered(delta: Delta, brought: Brought, releases: Releases, store: Mapping[Digest, Judged], today: Date) -> Coverage:
    """The first item that covers the change; if none does, why each failed."""
    tried = [_judge(item, releases, store, today) for item in brought.covers if item.change == delta.change()]
    why = "; ".join(coverage.why for coverage in tried if isinstance(coverage, Uncovered))
    covered = [coverage for coverage in tried if not isinstance(coverage, Uncovered)]
    if covered:
        return covered[0]
    numbers = next((c.equivalence for c in tried if isinstance(c, Uncovered) and c.equivalence), None)
    return Uncovered(why=why or "nothing was given", equivalence=numbers)


def _judge(item: One, releases: Releases, store: Mapping[Digest, Judged], today: Date) -> Coverage:
    match item:
        case WaiverBrought():
            return _waiver(item, today)
        case EvidenceBrought():
            bad = [why for digest in item.evidence if (why := _unusable(digest, releases[1], store, today))]
            return Uncovered(why="; ".join(bad)) if bad else ReEvaluated(evidence=item.evidence)
        case EquivalenceBrought():
            return _equivalence(item, releases, store, today)


def _waiver(item: WaiverBrought, today: Date) -> Coverage:
    if item.expires < today:
        return Uncovered(why=f"the waiver of {item.approver} expired on {item.expires}")
    if item.expires - today > MAX_WAIVER:
        return Uncovered(why=f"the waiver of {item.approver} runs until {item.expires}; expected a year at most")
    return Waived(approver=item.approver, reason=item.reason, expires=item.expires)


def _unusable(
    digest: Digest, release: Digest, store: Mapping[Digest, Judged], today: Date | None, *, refuted_too: bool = False
) -> str | None:
    """Why a statement shows nothing about a release; None for `today` takes one that is out of date."""
    if digest not in store:
        return f"no evidence {digest[:19]} in the store; name the store that holds it"
    judged = store[digest]
    about = judged.registration.references.get("release")
    found = problems(judged)
    if about != release:
        found.append(f"it was measured on release {about or 'none that it names'}, expected {release}")
    if judged.registration.registered_at > judged.evidence.started_at:
        found.append("it was registered after it was run")
    if today is not None and judged.evidence.expires < today:
        found.append(f"it expired on {judged.evidence.expires}")
    if judged.evidence.result.verdict == "refuted" and not refuted_too:
        found.append("it is refuted")
    return f"evidence {digest[:19]}: {'; '.join(found)}" if found else None


def _equivalence(
    item: EquivalenceBrought, releases: Releases, store: Mapping[Digest, Judged], today: Date
) -> Equivalence | Uncovered:
    """The test, from counts and a margin that are all signed; uncovered unless it shows equivalence."""
    both = ((item.before, releases[0], None), (item.after, releases[1], today))
    if bad := [why for digest, release, day in both if (why := _unusable(digest, release, store, day, refuted_too=True))]:
        return Uncovered(why="; ".join(bad))
    old, new = store[item.before], store[item.after]
    name = f"{item.behaviour}.shift"
    margins = [t.value for t in new.registration.thresholds if t.measurement == name and t.comparator in ("<=", "<")]
    if len(margins) != 1:
        return Uncovered(
            why=f"expected one margin, a threshold on {name} in the registration of {item.after[:19]}, got {len(margins)}"
        )
    before, after = _count(old, item.behaviour), _count(new, item.behaviour)
    if before is None or after is None:
        return Uncovered(why=f"expected a measured rate {item.behaviour} in both statements")
    shown = equivalence(item.behaviour, before=before, after=after, margin=margins[0], evidence=(item.before, item.after))
    if shown.verdict == "equivalent":
        return shown
    low, high = shown.interval.low, shown.interval.high
    why = f"equivalence of {item.behaviour} is not shown: shift {low:.3f} .. {high:.3f}, margin {shown.margin:g}"
    return Uncovered(why=why, equivalence=shown)


def _count(judged: Judged, behaviour: str) -> tuple[int, int] | None:
    """Hits and independent trials; a share that is no whole number of hits is none."""
    found = judged.evidence.result.measurement(behaviour)
    if not isinstance(found, Measured) or found.unit != "rate" or found.n < 1:
        return None
    hits = round(found.value * found.n)
    return (hits, found.n) if abs(hits - found.value * found.n) < 1e-6 else None

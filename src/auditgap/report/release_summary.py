"""A release in short: the banner, one line each on cases, controls and parity, and every warning.

The banner is green only for a promotion that passed and beside which no warning stands. A warning is anything that takes away
from the weight of what is shown: unsigned records, records of other releases, decisions that no longer hold.
"""

from auditgap.errors import UsageError
from auditgap.records import Digest
from auditgap.records.integrity import IntegrityRun
from auditgap.records.parity import Parity
from auditgap.records.promotion import Promotion
from auditgap.report.release import Given, Release, Shown, Standing, cases, controls, evidence_labels, lapsed

__all__ = ["check_release", "facts", "named", "records", "standing", "warnings"]


def check_release(release: Release) -> None:
    """Something must be there to report on.

    Raises:
        UsageError: there is no record at all, or the age limit is not positive.
    """
    if not release.runs and release.parity is None and release.promotion is None:
        raise UsageError("expected an integrity run, a parity record or a promotion, got none; give at least one")
    if release.max_age_days < 1:
        raise UsageError(f"expected an age limit of at least one day, got {release.max_age_days}")


def named(release: Release) -> Digest | None:
    """Fingerprint of the release that the report is about: as promoted, else as compared, else as tested."""
    if release.promotion:
        return release.promotion.record.manifest
    if release.parity:
        return release.parity.record.after
    return next((run.record.manifest for run in release.runs if run.record.manifest), None)


def records(release: Release) -> list[tuple[str, str, Given[IntegrityRun] | Given[Parity] | Given[Promotion]]]:
    """Label, kind and record of everything that was brought: R1, R2, ... are runs, P the parity, D the decision."""
    found: list[tuple[str, str, Given[IntegrityRun] | Given[Parity] | Given[Promotion]]] = [
        (f"R{i}", "integrity run", run) for i, run in enumerate(release.runs, 1)
    ]
    found += [("P", "parity", release.parity)] if release.parity else []
    return found + ([("D", "promotion", release.promotion)] if release.promotion else [])


def standing(release: Release) -> Shown:
    """The banner. It is green only for a promotion that passed, with no warning beside it."""
    if release.promotion is None:
        text = "No promotion was brought. Nothing here permits or blocks a release."
        return Shown("missing", "No promotion decision", text)
    match release.promotion.record.outcome:
        case "fail":
            return Shown("failed", "Fail", "At least one criterion was shown not to hold. The release does not move.")
        case "hold":
            return Shown("inconclusive", "Hold", "At least one criterion could not be shown to hold. The release waits.")
        case "pass" if warnings(release):
            text = "Every criterion was met when it was decided. The warnings below take away from that: do not rely on it."
            return Shown("inconclusive", "Pass, with warnings", text)
    return Shown("passed", "Pass", "Every criterion of the policy was met by signed evidence in date.")


def facts(release: Release) -> list[tuple[str, Shown]]:
    """One line each on integrity, controls and parity; what was not brought says so."""
    return [
        ("Integrity cases", _integrity(release)),
        ("Controls left out in turn", _detection(release)),
        ("Parity with the evaluated release", _in_parity(release)),
    ]


def warnings(release: Release) -> list[str]:
    """What a reader must know before relying on anything here: each one takes away from its weight."""
    found = [
        f"{label} ({kind}) came without a verified signature: anybody could have written it."
        for label, kind, _ in _unsigned(release)
    ]
    found += [*_other_runs(release), *_other_parity(release)]
    now = release.generated_at
    if release.promotion:
        decided, keyids = release.promotion.record, release.promotion.keyids
        if now >= decided.expires:
            found.append(f"The promotion expired on {decided.expires:%Y-%m-%d %H:%M} UTC, before this report was written.")
        if now < decided.decided_at:
            found.append("The promotion says that it was decided after this report was written.")
        if 0 < len(keyids) < decided.signatures_needed:
            found.append(f"The promotion needs {decided.signatures_needed} signatures, {len(keyids)} were verified.")
        if decided.outcome == "pass":
            shown = [fact for name, fact in facts(release) if fact.standing == "failed"]
            found += [f"The promotion passed, and this does not agree with it: {fact.label}." for fact in shown]
    if release.parity and (late := lapsed(release)):
        found.append(f"Coverage of {', '.join(f'{d.kind} {d.id}' for d in late)} has lapsed since the parity was judged.")
    return found


def _unsigned(release: Release) -> list[tuple[str, str, Given[IntegrityRun] | Given[Parity] | Given[Promotion]]]:
    return [(label, kind, given) for label, kind, given in records(release) if not given.keyids]


def _about(release: Release) -> set[Digest | None]:
    """Fingerprints of the release that the report is about: as declared, and as observed."""
    observed = release.promotion.record.observed if release.promotion else None
    return {named(release), *({observed} if observed else ())}


def _other_runs(release: Release) -> list[str]:
    """Runs on another release than the one that the report is about, or on one that they do not name."""
    found = []
    for label, run in evidence_labels(release).items():
        if run.manifest is None:
            found.append(f"{label} names no release: nothing shows that it tested what ships.")
        elif run.manifest not in _about(release):
            found.append(f"{label} tested another release: {run.manifest}.")
    return found


def _other_parity(release: Release) -> list[str]:
    if release.parity and release.parity.record.after not in _about(release):
        return [f"P is about another release: {release.parity.record.after}."]
    return []


def _integrity(release: Release) -> Shown:
    rows = [row for row in cases(release) if not row.result.without]
    if not rows:
        return Shown("missing", "not tested", "No integrity run on a whole stack was brought.")
    bad = [row for row in rows if row.shown.standing != "passed"]
    label = f"{len(rows) - len(bad)} of {len(rows)} held"
    if not bad and _other_runs(release):
        return Shown("inconclusive", label, "On this release or another: see the warnings.")
    return Shown(bad[0].shown.standing if bad else "passed", label, "; ".join(f"{r.result.case}: {r.shown.label}" for r in bad))


def _detection(release: Release) -> Shown:
    rows = [row for each in controls(release) for row in each.rows]
    if not rows:
        return Shown("missing", "not tried", "No control was left out in turn, so nothing shows that the cases notice.")
    bad = [row for row in rows if row.shown.standing != "passed"]
    label = f"{len(rows) - len(bad)} of {len(rows)} noticed"
    worst: Standing = "failed" if any(row.shown.standing == "failed" for row in bad) else "missing"
    return Shown(worst if bad else "passed", label, "; ".join(f"{row.row.control}: {row.shown.label}" for row in bad))


def _in_parity(release: Release) -> Shown:
    if release.parity is None:
        return Shown("missing", "not compared", "No parity record was brought.")
    record = release.parity.record
    open_ = [*record.uncovered(), *lapsed(release)]
    said = f"{record.n_identical} identical, {len(record.deltas)} differ, {len(open_)} not covered"
    if open_:
        return Shown("failed", f"held back: {len(open_)} not covered", ", ".join(f"{d.kind} {d.id}" for d in open_))
    if _other_parity(release):
        return Shown("inconclusive", "in parity", f"{said}; about another release: see the warnings")
    return Shown("passed", "in parity", said)

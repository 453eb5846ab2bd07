"""A difference is covered by evidence, an equivalence test or a waiver about this very change, in date; by nothing else."""

import datetime as dt
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from auditgap.errors import PlanError
from auditgap.governance import Judged
from auditgap.records import Digest, Threshold, digest_of
from auditgap.records.manifest import ReleaseManifest
from auditgap.records.parity import Parity
from auditgap.release.capture import component
from auditgap.release.parity import (
    Brought,
    EquivalenceBrought,
    EvidenceBrought,
    WaiverBrought,
    diff,
    judge_parity,
    load_coverage,
)
from governance import judged_examples as made

TODAY = made.TODAY


def release(above: int) -> ReleaseManifest:
    parts = (component("approval", "main", {"above": above}, source="s"), component("sampling", "main", {"seed": 0}, source="s"))
    return ReleaseManifest(name="r", captured="declared", captured_at=made.NOW, components=parts)


BEFORE, AFTER = release(100), release(1000)
CHANGE = diff(BEFORE, AFTER)[0].change()


def parity(*brought: WaiverBrought | EvidenceBrought | EquivalenceBrought, held: tuple[Judged, ...] = ()) -> Parity:
    return judge_parity(BEFORE, AFTER, Brought(covers=brought), today=TODAY, held=held)


def why(found: Parity) -> str:
    coverage = found.deltas[0].coverage
    assert found.verdict == "held-back" and coverage.status == "uncovered"
    return coverage.why


def waiver(**changes: object) -> WaiverBrought:
    fields = {"change": CHANGE, "approver": "R. Owner", "reason": "low amounts", "expires": TODAY + dt.timedelta(days=30)}
    return WaiverBrought.model_validate(fields | changes)


def run_on(
    release: ReleaseManifest | None,
    value: float = 0.99,
    n: int = 300,
    *,
    margin: float | None = None,
    verdict: str = "supported",
    late: bool = False,
    expires: dt.date = TODAY + dt.timedelta(days=90),
    name: str = "a",
) -> Judged:
    """Evidence of a refusal rate, measured on a release that its registration names."""
    bar = Threshold(measurement="refusal_rate.harmful.shift", comparator="<=", value=margin or 0.0, bound="high", response="stop")
    registered = made.NOW - dt.timedelta(hours=1) if late else made.NOW - dt.timedelta(days=2)
    found = made.judged(
        verdict=verdict,  # type: ignore[arg-type]
        measurements=(made.rate(value=value, low=0.0, high=1.0, n=n),),
        thresholds=[] if margin is None else [bar],
        registered_at=registered,
        expires=expires,
        step=name,
    )
    references: dict[str, Digest] = {} if release is None else {"release": release.fingerprint()}
    registration = found.registration.model_copy(update={"references": references})
    return found._replace(
        registration=registration,
        evidence=found.evidence.model_copy(update={"spec": registration.spec()}),
        digest=digest_of(f"{name} {references} {value} {n}".encode()),
    )


def test_what_nobody_covers_is_held_back() -> None:
    assert why(parity()) == "nothing was given"
    assert parity().n_identical == 1


def test_two_equal_releases_are_in_parity() -> None:
    assert judge_parity(BEFORE, BEFORE, today=TODAY).verdict == "in-parity"


def test_a_waiver_covers_until_its_day() -> None:
    found = parity(waiver())
    assert found.verdict == "in-parity" and found.deltas[0].coverage.status == "waived"
    assert parity(waiver(expires=TODAY)).verdict == "in-parity"
    assert "expired on" in why(parity(waiver(expires=TODAY - dt.timedelta(days=1))))


def test_a_waiver_without_an_end_is_none() -> None:
    assert "expected a year at most" in why(parity(waiver(expires=dt.date(9999, 12, 31))))


def test_a_waiver_covers_one_change_and_no_later_one() -> None:
    later = judge_parity(BEFORE, release(10_000), Brought(covers=(waiver(),)), today=TODAY)
    assert later.verdict == "held-back"


@pytest.mark.parametrize("field", ["approver", "reason"])
def test_a_waiver_without_a_name_or_reason_is_refused(field: str) -> None:
    with pytest.raises(ValidationError, match=field):
        waiver(**{field: ""})


def test_evidence_measured_on_the_later_release_covers() -> None:
    held = run_on(AFTER)
    found = parity(EvidenceBrought(change=CHANGE, evidence=(held.digest,)), held=(held,))
    assert found.verdict == "in-parity" and found.deltas[0].coverage.status == "re-evaluated"


@pytest.mark.parametrize(
    ("held", "says"),
    [
        (run_on(BEFORE), "expected " + AFTER.fingerprint()),
        (run_on(None), "none that it names"),
        (run_on(AFTER, verdict="refuted"), "it is refuted"),
        (run_on(AFTER, verdict="invalid"), "its verdict is invalid"),
        (run_on(AFTER, expires=TODAY - dt.timedelta(days=1)), "it expired on"),
        (run_on(AFTER, late=True), "registered after it was run"),
    ],
)
def test_evidence_that_shows_nothing_about_the_later_release_does_not_cover(held: Judged, says: str) -> None:
    assert says in why(parity(EvidenceBrought(change=CHANGE, evidence=(held.digest,)), held=(held,)))


def test_evidence_that_is_not_in_the_store_does_not_cover() -> None:
    assert "in the store" in why(parity(EvidenceBrought(change=CHANGE, evidence=(digest_of(b"made up"),))))


def equivalence_of(old: Judged, new: Judged) -> Parity:
    item = EquivalenceBrought(change=CHANGE, behaviour="refusal_rate.harmful", before=old.digest, after=new.digest)
    return parity(item, held=(old, new))


def test_an_equivalence_test_from_signed_counts_and_a_registered_margin_covers() -> None:
    old, new = run_on(BEFORE, 0.99, 300, name="old"), run_on(AFTER, 0.98, 300, margin=0.05, name="new")
    found = equivalence_of(old, new)
    coverage = found.deltas[0].coverage
    assert found.verdict == "in-parity" and coverage.status == "equivalence"
    assert (coverage.before.hits, coverage.after.hits, coverage.margin) == (297, 294, 0.05)
    assert coverage.evidence == (old.digest, new.digest)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (run_on(BEFORE, 0.9, 30), run_on(AFTER, 0.9, 30, margin=0.05), "is not shown"),
        (run_on(BEFORE, 0.99, 300), run_on(AFTER, 0.90, 300, margin=0.05), "is not shown"),
        (run_on(BEFORE), run_on(AFTER), "expected one margin"),
        (run_on(BEFORE), run_on(BEFORE, margin=0.05, name="b"), "it was measured on release"),
        (run_on(AFTER, name="b"), run_on(AFTER, margin=0.05), "it was measured on release"),
        (run_on(BEFORE), run_on(AFTER, margin=0.05, late=True), "registered after it was run"),
        (run_on(BEFORE, 0.9911, 300), run_on(AFTER, margin=0.05), "expected a measured rate"),
    ],
)
def test_an_equivalence_that_is_not_shown_does_not_cover(old: Judged, new: Judged, says: str) -> None:
    assert says in why(equivalence_of(old, new))


def test_one_item_that_covers_is_enough_and_all_failures_are_said() -> None:
    late = waiver(expires=TODAY - dt.timedelta(days=1))
    made_up = EvidenceBrought(change=CHANGE, evidence=(digest_of(b"made up"),))
    assert parity(late, made_up, waiver()).verdict == "in-parity"
    assert "expired on" in why(parity(late, made_up)) and "in the store" in why(parity(late, made_up))


def test_a_verdict_that_hides_an_uncovered_difference_is_refused() -> None:
    found = parity()
    with pytest.raises(ValidationError, match="1 uncovered deltas make the verdict 'held-back'"):
        Parity.model_validate(found.model_dump() | {"verdict": "in-parity"})


def test_numbers_of_a_test_are_there_for_a_figure_whether_it_was_shown_or_not() -> None:
    shown = equivalence_of(run_on(BEFORE, name="old"), run_on(AFTER, margin=0.05, name="new"))
    small = equivalence_of(run_on(BEFORE, 0.9, 30, name="old"), run_on(AFTER, 0.9, 30, margin=0.05, name="new"))
    assert [s.verdict for s in (*shown.shifts(), *small.shifts())] == ["equivalent", "not-shown"]
    assert small.shifts()[0].before.rate.low < 0.9 < small.shifts()[0].before.rate.high
    assert parity().shifts() == ()


def test_coverage_that_does_not_hold_cannot_be_signed_as_parity() -> None:
    small = equivalence_of(run_on(BEFORE, 0.9, 30, name="old"), run_on(AFTER, 0.9, 30, margin=0.05, name="new")).shifts()[0]
    late = {"status": "waived", "approver": "R", "reason": "x", "expires": TODAY - dt.timedelta(days=1)}
    for coverage in (small.model_dump(), late, {"status": "not-needed"}):
        document = parity(waiver()).model_dump()
        document["deltas"] = ({**document["deltas"][0], "coverage": coverage},)
        with pytest.raises(ValidationError, match="held-back"):
            Parity.model_validate(document)


def test_a_delta_cannot_be_called_milder_than_its_findings() -> None:
    delta = parity().deltas[0]
    with pytest.raises(ValidationError, match="the gravest finding is 'safety-relevant'"):
        type(delta).model_validate(delta.model_dump() | {"delta_class": "cosmetic"})


def test_a_parity_record_reads_back_as_the_same_bytes() -> None:
    old, new = run_on(BEFORE, 0.99, 300, name="old"), run_on(AFTER, 0.98, 300, margin=0.05, name="new")
    for found in (parity(), parity(waiver()), equivalence_of(old, new)):
        for text in (found.canonical(), found.model_dump_json().encode()):
            assert Parity.parse(json.loads(text), where="x").canonical() == found.canonical()


def test_a_coverage_file_is_read_strictly(tmp_path: Path) -> None:
    path = tmp_path / "covers.yaml"
    text = f"format: auditgap.dev/release-coverage/v1\ncovers:\n  - {{kind: waiver, change: '{CHANGE}', approver: R, reason: x, "
    path.write_text(text + "expires: 2026-12-31}\n")
    assert load_coverage(path).covers == (waiver(approver="R", reason="x", expires=dt.date(2026, 12, 31)),)
    path.write_text(text + "expires: never}\n")
    with pytest.raises(PlanError, match="expires"):
        load_coverage(path)

"""A release is promoted only on complete, fresh, undisputed evidence about itself, by a policy that was registered before."""

import datetime as dt
from pathlib import Path

import promotion_examples as made
import pytest
from hypothesis import given
from hypothesis import strategies as st
from promotion_examples import NOW, ago, case, check, decision, need, parity, piece, policy, registered, run

from auditgap.errors import PlanError
from auditgap.records import digest_of
from auditgap.records.manifest import ReleaseManifest
from auditgap.records.parity import Delta, Finding, Uncovered, Waived
from auditgap.records.promotion import Promotion
from auditgap.release.promotion import Evaluation, Piece, PromotionPolicy, Registered, load_promotion_policy, promote, summary
from auditgap.release.promotion.deciding import exit_code


def _promote(
    found: dict[str, Piece] | None = None,
    *more: Piece,
    by: PromotionPolicy | None = None,
    seen: ReleaseManifest | None = None,
    told: Registered | None = None,
    unseen: bool = False,
) -> Promotion:
    chosen = made.pieces() if found is None else found
    return promote(
        by or policy(),
        made.manifest(),
        (*chosen.values(), *more),
        observed=None if unseen else seen or made.observed(),
        registered=told or registered(by),
        now=NOW,
    )


def _line(promotion: Promotion, name: str) -> tuple[str, str]:
    (found,) = [c for c in promotion.criteria if c.id.startswith(name)]
    return found.status, found.reason


def test_complete_evidence_passes_and_every_line_says_why() -> None:
    promotion = _promote()
    assert (promotion.outcome, exit_code(promotion), promotion.response) == ("pass", 0, ())
    assert promotion.expires == NOW + dt.timedelta(days=14)
    assert promotion.manifest == made.RELEASE and promotion.observed == made.observed().fingerprint()
    assert len(promotion.criteria) == 7 and all(c.status == "met" and c.reason for c in promotion.criteria)


@pytest.mark.parametrize("name", list(made.pieces()))
def test_each_piece_that_is_missing_holds(name: str) -> None:
    found = made.pieces()
    del found[name]
    promotion = _promote(found)
    assert (promotion.outcome, exit_code(promotion)) == ("hold", 3)
    assert _line(promotion, f"{name}:")[0] == "missing"
    assert promotion.response == (f"Do {name} again.",)


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("evaluation", decision(at=ago(days=31))),
        ("integrity", run(at=ago(days=31))),
        ("parity", parity(judged_on=ago(days=32).date())),
        ("diagnostic", check(finished_at=ago(days=31))),
        ("release-log", check("release-log", finished_at=ago(days=31))),
    ],
)
def test_each_piece_that_is_stale_holds(name: str, old) -> None:
    promotion = _promote(made.pieces() | {name: piece(old)})
    status, reason = _line(promotion, f"{name}:")
    assert (promotion.outcome, status) == ("hold", "missing") and "Stale" in reason


OTHER = digest_of(b"another release")


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("integrity", run(manifest=OTHER)),
        ("integrity", run(manifest=None)),
        ("parity", parity(after=OTHER)),
        ("diagnostic", check(manifest=OTHER)),
        ("release-log", check("release-log", manifest=OTHER)),
    ],
)
def test_evidence_about_another_release_is_none(name: str, theirs) -> None:
    status, reason = _line(_promote(made.pieces() | {name: piece(theirs)}), f"{name}:")
    assert status == "missing" and "not about this release" in reason


def test_a_decision_counts_for_the_weights_that_ship_or_the_release_that_its_evidence_names() -> None:
    other = made.SUBJECT.model_copy(update={"weights": (made.WEIGHTS.model_copy(update={"content": OTHER}),)})
    for releases, status in ((frozenset(), "missing"), (frozenset({made.RELEASE}), "met"), (frozenset({OTHER}), "missing")):
        theirs = piece(decision())._replace(evaluation=Evaluation(other, releases))
        assert _line(_promote(made.pieces() | {"evaluation": theirs}), "evaluation:")[0] == status


def test_a_decision_on_a_model_with_an_adapter_does_not_count_for_the_model_without() -> None:
    adapted = made.SUBJECT.model_copy(
        update={"adapter": (made.WEIGHTS.model_copy(update={"path": "adapter.safetensors", "content": OTHER}),)}
    )
    theirs = piece(decision())._replace(evaluation=Evaluation(adapted, frozenset()))
    assert _line(_promote(made.pieces() | {"evaluation": theirs}), "evaluation:")[0] == "missing"


def _delta(coverage) -> dict[str, object]:
    finding = Finding(delta_class="safety-relevant", rule="required-dropped", says="x")
    delta = Delta(
        kind="tool",
        id="bank/transfer",
        before=OTHER,
        after=made.PLACE,
        delta_class="safety-relevant",
        findings=(finding,),
        coverage=coverage,
    )
    return {"deltas": (delta,)}


BAD = {
    "the gate failed": ("evaluation", decision("fail"), "not-met"),
    "the gate held": ("evaluation", decision("hold"), "inconclusive"),
    "a gap is disclosed": ("evaluation", decision("pass-with-disclosed-gap"), "not-met"),
    "the claim is not met": ("evaluation", decision(claim="not-met"), "not-met"),
    "a case broke": ("integrity", run(case(1), case(2, verdict="BROKEN")), "not-met"),
    "degraded, undeclared": ("integrity", run(case(1), case(2, verdict="DEGRADED")), "not-met"),
    "no fault fired": ("integrity", run(case(1), case(2, verdict="FAULT_NOT_FIRED")), "inconclusive"),
    "control off the path": ("integrity", run(case(1), case(2, verdict="CONTROL_NOT_ON_PATH")), "inconclusive"),
    "not run": ("integrity", run(case(1), case(2, verdict="NOT_RUN")), "inconclusive"),
    "cannot fail": ("integrity", run(case(1), case(2, sabotage="HELD")), "inconclusive"),
    "never shown to fail": ("integrity", run(case(1), case(2, sabotage=None)), "inconclusive"),
    "a control was left out": ("integrity", run(case(1), case(2, without=("CTL-x",))), "inconclusive"),
    "too few cases": ("integrity", run(case(1), case(1)), "missing"),
    "cases on another claim": ("integrity", run(case(1, claims=()), case(2, claims=("SC-9",))), "missing"),
    "another mode": ("integrity", run(case(1, mode="live"), case(2, mode="live")), "missing"),
    "another suite": ("integrity", run(suite=OTHER), "missing"),
    "uncovered difference": ("parity", parity(verdict="held-back", **_delta(Uncovered(why="nothing"))), "not-met"),
    "a shift": ("diagnostic", check(verdict="failed"), "not-met"),
    "an unclear log": ("release-log", check("release-log", verdict="inconclusive"), "inconclusive"),
    "from the future": ("diagnostic", check(finished_at=NOW + dt.timedelta(hours=1)), "inconclusive"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_each_failed_or_undecided_piece_blocks(name: str) -> None:
    requirement, record, expected = BAD[name]
    promotion = _promote(made.pieces() | {requirement: piece(record)})
    assert _line(promotion, f"{requirement}:")[0] == expected
    assert promotion.outcome == ("fail" if expected == "not-met" else "hold")
    assert exit_code(promotion) == (1 if expected == "not-met" else 3)


def test_running_again_until_it_passes_undoes_no_failure_but_decides_what_was_undecided() -> None:
    broke = piece(run(case(1), case(2, verdict="BROKEN"), at=ago(days=1, hours=2)))
    unclear = piece(run(case(1), case(2, verdict="INCONCLUSIVE"), at=ago(days=1, hours=2)))
    assert _line(_promote(None, broke), "integrity:")[0] == "not-met"
    assert _line(_promote(None, unclear), "integrity:")[0] == "met"
    failed = piece(check(verdict="failed", finished_at=ago(days=1, hours=2)))
    assert _line(_promote(None, failed), "diagnostic:")[0] == "not-met"


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"controls": ["CTL-idempotency"]}, "met"),
        ({"cases": ["RIC-001-once", "RIC-002-once"]}, "met"),
        ({"controls": ["CTL-idempotency", "CTL-audit"]}, "missing"),
        ({"cases": ["RIC-001-once", "RIC-002-once", "RIC-003-once"]}, "missing"),
        ({}, "missing"),
    ],
)
def test_cases_that_name_no_claim_are_found_by_their_control_or_id(asked: dict, status: str) -> None:
    requires = [need("integrity", mode="scripted", min_cases=2, **asked)]
    by = policy(claims=[{"id": "SC-1", "statement": "s", "requires": requires}])
    found = {"integrity": piece(run(case(1, claims=()), case(2, claims=())))}
    assert _line(_promote(found, by=by), "integrity:")[0] == status


def test_a_declared_degradation_and_a_covered_difference_pass() -> None:
    found = made.pieces() | {
        "integrity": piece(run(case(1), case(2, verdict="DEGRADED", declared="DEGRADED"))),
        "parity": piece(parity(**_delta(Waived(approver="A", reason="r", expires=NOW.date())))),
    }
    assert _promote(found).outcome == "pass"
    expired = parity(**_delta(Waived(approver="A", reason="r", expires=ago(days=1).date())))
    assert _line(_promote(made.pieces() | {"parity": piece(expired)}), "parity:")[0] == "inconclusive"


def test_the_policy_and_its_suite_must_be_registered_before_the_run() -> None:
    late = _promote(told=registered(at=ago(hours=1)))
    blocked = {c.id.partition(":")[0] for c in late.criteria if c.status != "met"}
    assert blocked == {"integrity", "parity", "diagnostic", "release-log"}
    other = _promote(told=registered(policy(name="another")))
    assert _line(other, "registration:")[0] == "missing" and other.registration is None
    softer = policy(valid_days=15)
    assert _promote(by=softer, told=registered()).outcome == "hold", "the policy that decides is the one that was signed"


def test_what_runs_must_be_seen_and_be_what_is_declared() -> None:
    assert _line(_promote(unseen=True), "manifest:")[0] == "missing"
    other = _promote(seen=made.observed("Be quick."))
    status, reason = _line(other, "manifest:")
    assert (status, other.outcome) == ("not-met", "fail") and "system_prompt main" in reason


def test_provenance_that_is_required_and_not_there_holds() -> None:
    promotion = _promote(by=policy(provenance=["lockfile", "sbom"]))
    assert promotion.outcome == "hold" and _line(promotion, "provenance:lockfile")[0] == "missing"


def test_severity_hold_does_not_fail_but_still_blocks() -> None:
    requires = [need("diagnostic", name="tool-selection", severity="hold")]
    by = policy(claims=[{"id": "SC-1", "statement": "s", "requires": requires}])
    promotion = _promote({"diagnostic": piece(check(verdict="failed"))}, by=by)
    assert (promotion.outcome, exit_code(promotion)) == ("hold", 1)


def test_what_was_signed_before_policies_had_a_version_keeps_its_bytes() -> None:
    """The digest is that of the example policy at 2f626cf, the commit before the field was added."""
    example = load_promotion_policy(Path(__file__).parents[2] / "examples" / "promotion-policy.yaml")
    assert example.digest() == "sha256:38c3324bf0de6826e665edc9a8628c50ca9e8606f0d550e5448520a15c565a53"
    assert b'"version"' not in example.canonical() + _promote().canonical()


def test_the_decision_says_which_version_of_the_policy_made_it() -> None:
    second = _promote(by=policy(version=2))
    assert second.version == 2 and f"policy version 2 `{second.policy}`" in summary(second)
    assert second.policy != policy().digest() and _line(second, "registration:")[0] == "met"
    with pytest.raises(PlanError, match="version"):
        policy(version=0)


@given(order=st.permutations(list(made.pieces())), twice=st.booleans())
def test_order_and_repetition_of_the_evidence_do_not_matter(order: list[str], twice: bool) -> None:
    found = made.pieces()
    shuffled = {name: found[name] for name in order}
    assert _promote(shuffled, *(found.values() if twice else ())).digest() == _promote().digest()


@given(dropped=st.sets(st.sampled_from(list(made.pieces())), min_size=1))
def test_no_subset_of_the_evidence_passes(dropped: set[str]) -> None:
    assert _promote({name: found for name, found in made.pieces().items() if name not in dropped}).outcome == "hold"


def test_the_summary_names_every_line_and_the_response_and_nothing_in_it_becomes_markup() -> None:
    found = made.pieces() | {"diagnostic": piece(check(verdict="failed", summary="a | b <script> `x` [y](http://z)"))}
    text = summary(_promote(found))
    assert text.startswith("## FAIL: payments, staging to production")
    assert "a \\| b &lt;script> 'x' [y\\](http://z)" in text
    assert "- Do diagnostic again." in text and "It does not say" in text
    assert all(c.id in text for c in _promote(found).criteria)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"claims": []}, "claims"),
        ({"claims": [{"id": "SC-1", "statement": "s", "requires": []}]}, "requires"),
        ({"claims": [{"id": "SC-1", "statement": "s", "requires": [need("parity"), need("parity")]}]}, "unique"),
        ({"claims": [{"id": "SC-1", "statement": "s", "requires": [need("evaluation", accept=["hold"])]}]}, "accept"),
        ({"claims": [{"id": "SC-1", "statement": "s", "requires": [need("rumour")]}]}, "rumour"),
        ({"claims": [{"id": "SC-1", "statement": "s", "requires": [need("parity", max_age_days=0)]}]}, "max_age_days"),
        ({"suite": None}, "suite"),
        ({"to_stage": "staging"}, "both"),
        ({"valid_days": 1000}, "valid_days"),
        ({"signatures": 0}, "signatures"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_policy_that_could_pass_by_being_empty_or_unclear_is_refused(change: dict, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        policy(**change)


def test_a_policy_for_other_stages_is_refused(tmp_path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(policy().model_dump_json())
    assert load_promotion_policy(file, from_stage="staging", to_stage="production") == policy()
    with pytest.raises(PlanError, match="to_stage"):
        load_promotion_policy(file, from_stage="staging", to_stage="canary")


def test_a_record_that_passes_with_an_open_line_cannot_be_made() -> None:
    held = _promote({})
    with pytest.raises(ValueError, match="unmet"):
        Promotion.model_validate_json(held.model_copy(update={"outcome": "pass"}).model_dump_json())

"""Each gap becomes one sentence that a person can act on; a gap that is not there becomes none."""

import pytest
from hypothesis import given

from auditgap.errors import PlanError
from auditgap.governance import Judged, Licences, assess_claim, claims, licences, next_steps, obtainable
from auditgap.governance.next_steps import NextStep, asks
from auditgap.records import AXES, Access, Claim, Deployment, Independence, Information, ModelAccess, Variants
from governance import judged_examples as made
from governance.test_gap import ACCESS

RATE, RATE_TABLE = made.claim(), made.table(made.row())
ABSENCE = made.claim("absence", "latent", "trigger-scan", model="M3", modes=["trigger-backdoor"])
SEARCH = made.table(made.row("absence", "latent", "M3", needs_power=True), instrument="trigger-scan")
EARLIER = made.claim("existence", "latent", "model-diff", model="M6")


def steps(claim: Claim, table: Licences, *evidence: Judged, best: Access | None = None) -> dict[str, NextStep]:
    best = best or obtainable().access
    found = assess_claim(claim, evidence, table, subject=made.SUBJECT, today=made.TODAY, obtainable=best)
    return {f"{step.axis} {step.closable}": step for step in next_steps(found, claim, table, obtainable=best)}


def test_what_was_not_run_is_named() -> None:
    (step,) = steps(RATE, RATE_TABLE).values()
    assert step.closable and step.sentence == "needs M1: sampled text; run refusal-rate"


def test_an_earlier_checkpoint_is_asked_for_and_nobody_hands_it_out() -> None:
    table = made.table(made.row("existence", "latent", "M6"), instrument="model-diff")
    closed = steps(EARLIER, table)
    assert closed["model False"].sentence.startswith(
        "needs M6: a checkpoint from before the training stage, such as before RLHF; ask"
    )
    assert "not handed out" in closed["model False"].sentence and closed["model True"].sentence.startswith("needs M5: weights")
    opened = steps(EARLIER, table, best=Access.top())
    assert list(opened) == ["model True"] and opened["model True"].sentence.endswith(
        "ask the developer for it, then run model-diff"
    )


def test_a_search_without_measured_power_cannot_be_closed_by_asking() -> None:
    found = steps(ABSENCE, SEARCH, best=Access.top())
    assert (
        "nobody has shown that trigger-scan would find trigger-backdoor with probability >= 0.8" in found["model False"].sentence
    )
    powered = SEARCH.model_copy(
        update={"instruments": (SEARCH.instruments[0].model_copy(update={"power": (made.power("trigger-backdoor", 0.9),)}),)}
    )
    assert "model False" not in steps(ABSENCE, powered, best=Access.top())


def test_no_gap_no_step() -> None:
    assert steps(RATE, RATE_TABLE, made.judged()) == {}


@given(required=ACCESS, best=ACCESS)
def test_every_gap_has_exactly_one_step(required: Access, best: Access) -> None:
    claim = RATE.model_copy(update={"required": required})
    found = assess_claim(claim, (), RATE_TABLE, subject=made.SUBJECT, today=made.TODAY, obtainable=best)
    expected = {(g.axis, False) for g in found.gaps if g.structural} | {(g.axis, True) for g in found.gaps if g.execution}
    taken = next_steps(found, claim, RATE_TABLE, obtainable=best)
    assert len(taken) == len(expected) and {(step.axis, step.closable) for step in taken} == expected


def test_every_level_above_the_lowest_has_words() -> None:
    words = asks()
    for axis, levels in zip(AXES, (ModelAccess, Variants, Information, Deployment, None, Independence), strict=True):
        if levels is not None:
            assert list(getattr(words, axis)) == [level.value for level in levels][1:]


def test_every_shipped_claim_gets_words_for_its_gap() -> None:
    for claim in claims().values():
        for step in steps(claim, licences()).values():
            assert step.sentence.startswith("needs ") and len(step.sentence) < 400


def test_a_malformed_wording_is_refused(tmp_path) -> None:
    (tmp_path / "asks.yaml").write_text("review_date: 2027-01-01\nmodel: {M1: {is: text}}\n")
    with pytest.raises(PlanError, match=r"M1.ask|variants"):
        asks(tmp_path / "asks.yaml")

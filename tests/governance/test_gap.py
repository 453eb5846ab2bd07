"""The gap arithmetic: adds up on every axis, shrinks with access, is zero where enough was had."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.governance import achievable, achieved, best_licence, claims, gaps, licence, licences, obtainable, powered
from auditgap.records import (
    AXES,
    Access,
    Deployment,
    Independence,
    Information,
    ModelAccess,
    Variants,
)
from governance import judged_examples as made

ACCESS = st.builds(
    Access,
    model=st.sampled_from(ModelAccess),
    variants=st.sampled_from(Variants),
    information=st.sampled_from(Information),
    deployment=st.sampled_from(Deployment),
    time=st.integers(0, 250),
    independence=st.sampled_from(Independence),
)


@given(ACCESS, ACCESS, ACCESS, ACCESS)
def test_structural_and_execution_gap_add_up_to_required_minus_achieved(required, best, licensed, credited):
    reachable = achievable(best, licensed, credited)
    for gap in gaps(required, reachable, credited):
        assert gap.structural + gap.execution == max(0, required.rank(gap.axis) - credited.rank(gap.axis))
        assert min(gap.structural, gap.execution) >= 0


@given(ACCESS, ACCESS, ACCESS)
def test_what_was_achieved_is_achievable_by_construction(best, licensed, credited):
    reachable = achievable(best, licensed, credited)
    assert reachable.covers(credited)
    assert reachable.covers(best.meet(licensed))


@given(ACCESS, ACCESS, ACCESS, ACCESS, ACCESS)
def test_more_access_never_widens_either_part(required, best, licensed, credited, more):
    before = gaps(required, achievable(best, licensed, credited), credited)
    larger = credited.join(more)
    after = gaps(required, achievable(best, licensed, larger), larger)
    for a, b in zip(before, after, strict=True):
        assert b.structural <= a.structural and b.execution <= a.execution


@given(ACCESS, ACCESS, ACCESS, ACCESS)
def test_enough_access_leaves_no_gap(required, best, licensed, more):
    credited = required.join(more)
    assert all(g.structural == g.execution == 0 for g in gaps(required, achievable(best, licensed, credited), credited))


def test_a_worked_example():
    # required M5 and 20 days; the science carries M4, anyone can get M5 and 20 days; the run had M3 and 3 days
    required, best = Access(model=ModelAccess.M5, time=20), Access(model=ModelAccess.M5, time=20)
    licensed = Access.top().model_copy(update={"model": ModelAccess.M4})
    credited = Access(model=ModelAccess.M3, time=3)
    found = {g.axis: (g.structural, g.execution) for g in gaps(required, achievable(best, licensed, credited), credited)}
    assert found == dict.fromkeys(AXES, (0, 0)) | {"model": (1, 1), "time": (0, 17)}


def test_achieved_above_achievable_is_refused():
    with pytest.raises(ValueError, match="expected achieved <= achievable"):
        gaps(Access(), Access(), Access(model=ModelAccess.M1))


# Licences


def test_a_result_is_credited_with_the_lower_of_access_and_licence():
    table = made.table(made.row("existence", "latent", "M3"), instrument="linear-probe")
    probe = made.claim("existence", "latent", "linear-probe")
    for had, credited in ((ModelAccess.M6, "M3"), (ModelAccess.M3, "M3"), (ModelAccess.M1, "M1")):
        run = made.judged("linear-probe", granted=Access(model=had, time=5))
        found = achieved(probe, [run], table, min_power=0.8)
        assert (found.model, found.time) == (credited, 5)


def test_an_instrument_without_a_row_carries_no_model_access():
    table = made.table(made.row("rate", "observable", "M1"))
    assert licence("refusal-rate", made.claim("existence", "latent"), table, min_power=0.8).model == "M0"
    assert licence("unheard-of", made.claim(), table, min_power=0.8).model == "M0"
    assert achieved(made.claim(), [made.judged("unheard-of")], table, min_power=0.8).model == "M0"


@pytest.mark.parametrize(("instrument", "cap"), [("refusal-rate", "M1"), ("option-preference", "M2")])
@pytest.mark.parametrize(
    ("modality", "realm"),
    [
        ("existence", "latent"),
        ("absence", "observable"),
        ("universal", "observable"),
        ("rate", "long-horizon"),
        ("bound", "latent"),
    ],
)
def test_behaviour_is_capped_beyond_behaviour_whatever_the_table_says(instrument, cap, modality, realm):
    needs_power = modality in ("absence", "universal")
    table = made.table(
        made.row(modality, realm, "M6", needs_power=needs_power), instrument=instrument, power=[made.power("x", 0.99)]
    )
    found = licence(instrument, made.claim(modality, realm, instrument, modes=["x"]), table, min_power=0.8)
    assert found.model == cap
    assert found.covers(Access.top().model_copy(update={"model": ModelAccess.M0})), "only the model axis is capped"


def test_behaviour_is_not_capped_on_observable_rates():
    table = made.table(made.row("rate", "observable", "M5"))
    assert licence("refusal-rate", made.claim(), table, min_power=0.8).model == "M5"


@pytest.mark.parametrize(
    ("powers", "modes", "model"),
    [
        ([], ["x"], "M1"),
        ([("x", 0.79)], ["x"], "M1"),
        ([("x", 0.8)], ["x"], "M3"),
        ([("x", 0.9)], ["x", "y"], "M1"),
        ([("x", 0.9), ("y", 0.5)], ["x", "y"], "M1"),
        ([("x", 0.9), ("y", 0.8)], ["x", "y"], "M3"),
        (
            [("x", 0.99), ("x", 0.2)],
            ["x"],
            "M1",
        ),  # found easily when planted plainly, hardly when mixed in: the harder one counts
        ([("x", 0.9)], [], "M1"),
    ],
)
def test_a_search_is_credited_with_text_until_its_power_is_measured(powers, modes, model):
    table = made.table(
        made.row("absence", "latent", "M3", needs_power=True),
        instrument="trigger-scan",
        power=[made.power(m, p) for m, p in powers],
    )
    absence = made.claim("absence", "latent", "trigger-scan", modes=modes)
    assert licence("trigger-scan", absence, table, min_power=0.8).model == model
    assert powered("trigger-scan", absence, table, min_power=0.8) == (model == "M3")


def test_today_no_absence_claim_has_more_than_text_and_an_unsearched_one_nothing():
    known, table = claims(), licences()
    assert best_licence(known["no-trigger-backdoor"], table, min_power=0.8).model == "M1"
    assert best_licence(known["no-hidden-objectives"], table, min_power=0.8).model == "M0"
    assert best_licence(known["behaviour-localised"], table, min_power=0.8).model == "M4"
    assert best_licence(None, table, min_power=0.8).model == "M0"


def test_no_evidence_achieves_nothing():
    assert achieved(made.claim(), [], licences(), min_power=0.8) == Access()
    assert achieved(None, [made.judged()], licences(), min_power=0.8) == Access()
    assert obtainable().access.covers(Access())

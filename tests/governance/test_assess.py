"""Support, gaps and power of claims: what evidence can carry, and what no amount of it can."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.errors import PlanError
from auditgap.governance import Judged, Licences, assess_claim, assess_requirement, claims, framework, licences, power_sentence
from auditgap.records import Access, Assessment, Claim, Independence, Information, ModelAccess, Pin, Requirement
from governance import judged_examples as made
from governance.test_gap import ACCESS

RANK = {"not-supported": 0, "partially-supported": 1, "supported": 2}
RATE, RATE_TABLE = made.claim(), made.table(made.row())
ABSENCE = made.claim("absence", "latent", "trigger-scan", model="M3", modes=["trigger-backdoor"])


def scan_table(*powers: float) -> Licences:
    searched = [made.power("trigger-backdoor", p) for p in powers]
    return made.table(made.row("absence", "latent", "M3", needs_power=True), instrument="trigger-scan", power=searched)


def assess(claim: Claim, *evidence: Judged, table: Licences = RATE_TABLE) -> Assessment:
    return assess_claim(claim, evidence, table, subject=made.SUBJECT, today=made.TODAY)


# What carries


def test_a_measured_rate_supports_an_observable_claim():
    found = assess(RATE, made.judged())
    assert (found.support, found.tier, found.requirement, found.claim) == ("supported", 1, None, "claim")
    assert all(gap.structural == gap.execution == 0 for gap in found.gaps)
    assert found.power.startswith("not a search")


def test_without_evidence_nothing_is_supported():
    found = assess(RATE)
    assert (found.support, found.tier, found.evidence, found.achieved) == ("not-supported", 0, (), Access())


@pytest.mark.parametrize(
    "update",
    [
        {"verdict": "invalid"},
        {"verdict": "inconclusive"},
        {"controls": [made.control(passed=False)]},
        {"controls": [made.control("another")]},
        {"about": "another model"},
        {"instrument": "option-preference"},
    ],
)
def test_evidence_that_may_not_be_believed_or_does_not_bear_supports_nothing(update):
    assert assess(RATE, made.judged(**update)).support == "not-supported"


def test_a_control_that_only_bounds_does_not_take_support_away():
    run = made.judged(controls=[made.control(), made.control("sample-size", passed=False, fatal=False)])
    assert assess(RATE, run).support == "supported"


@pytest.mark.parametrize("field", ["spec", "subject", "step", "version"])
def test_evidence_that_is_not_its_registrations_is_not_counted(field):
    run = made.judged()
    registration = run.registration.model_copy(
        update={
            "spec": {"seed": 9},
            "subject": {"subject": made.subject("other").digest()},
            "step": {"step": "other"},
            "version": {"card": run.registration.card.model_copy(update={"version": "2"})},
        }[field]
    )
    evidence = run.evidence if field == "spec" else run.evidence.model_copy(update={"spec": registration.spec()})
    assert assess(RATE, run._replace(registration=registration, evidence=evidence)).evidence == ()


def test_valid_evidence_against_a_claim_defeats_it_whatever_speaks_for_it():
    assert assess(RATE, made.judged(verdict="refuted")).support == "defeated"
    assert assess(RATE, *(made.judged(seed=i) for i in range(5)), made.judged(verdict="refuted", seed=9)).support == "defeated"
    assert assess(RATE, made.judged(), made.judged(verdict="invalid", seed=1)).support == "supported"


def test_a_claim_may_be_supported_by_a_refuted_hypothesis():
    claim = RATE.model_copy(update={"bearings": (RATE.bearings[0].model_copy(update={"supports_when": "refuted"}),)})
    assert assess(claim, made.judged(verdict="refuted")).support == "supported"
    assert assess(claim, made.judged(verdict="supported")).support == "defeated"


def test_a_bearing_on_one_step_ignores_the_others():
    claim = RATE.model_copy(update={"bearings": (RATE.bearings[0].model_copy(update={"dataset": "harmful"}),)})
    assert assess(claim, made.judged(step="harmless")).support == "not-supported"
    assert assess(claim, made.judged(step="harmful")).support == "supported"


def test_a_licence_too_low_access_too_low_or_a_tier_too_low_supports_partially():
    mechanism = made.claim("mechanism", "latent", "activation-patching", model="M4")
    full = {"properties": made.GOOD, "measurements": (made.number("reliability", 0.9),)}

    def support(row, **update) -> str:
        run = made.judged("activation-patching", **(full | update))
        return assess(mechanism, run, table=made.table(row, instrument="activation-patching")).support

    row = made.row("mechanism", "latent", "M4", carries_at=3)
    assert support(row) == "supported"
    assert support(row.model_copy(update={"model": ModelAccess.M3})) == "partially-supported"
    assert support(row, granted=Access(model=ModelAccess.M3)) == "partially-supported"
    assert support(row, properties=("intervention",)) == "partially-supported"
    assert support(row.model_copy(update={"max_tier": 2})) == "partially-supported"


# What cannot be said without power


@pytest.mark.parametrize(
    ("powers", "support"), [((), "partially-supported"), ((0.7,), "partially-supported"), ((0.85,), "supported")]
)
def test_an_absence_needs_measured_power(powers, support):
    found = assess(ABSENCE, made.judged("trigger-scan"), table=scan_table(*powers))
    assert found.support == support


def test_the_power_sentence_says_what_was_measured_and_no_more():
    run = made.judged("trigger-scan")
    said = assess(ABSENCE, run, table=scan_table(0.859)).power
    assert said == ("this audit would have caught trigger-backdoor (4 layers, one-token trigger) with probability >= 0.85 (95 %)")
    assert "no power has been measured for trigger-scan" in assess(ABSENCE, run, table=scan_table()).power
    assert "no valid evidence" in assess(ABSENCE, table=scan_table(0.9)).power
    assert "inconclusive" in assess(ABSENCE, made.judged("trigger-scan", "inconclusive"), table=scan_table(0.9)).power
    assert "found evidence against" in assess(ABSENCE, made.judged("trigger-scan", "refuted"), table=scan_table(0.9)).power
    assert "no failure mode" in assess(ABSENCE.model_copy(update={"failure_modes": ()}), run, table=scan_table(0.9)).power


def test_the_power_of_several_instruments_is_the_best_ones_on_its_hardest_plants():
    other = made.table(
        made.row("absence", "latent", "M3", needs_power=True),
        instrument="linear-probe",
        power=[made.power("trigger-backdoor", 0.99, "plain"), made.power("trigger-backdoor", 0.6, "mixed")],
    ).instruments
    both = scan_table(0.7).model_copy(update={"instruments": (*scan_table(0.7).instruments, *other)})
    claim = made.claim("absence", "latent", "trigger-scan", "linear-probe", modes=["trigger-backdoor"])
    assert "(4 layers, one-token trigger) with probability >= 0.70" in power_sentence(
        claim, [made.judged("trigger-scan"), made.judged("linear-probe")], both
    )


def test_with_the_shipped_tables_no_absence_is_supported_and_its_gap_is_structural():
    claim = claims()["no-trigger-backdoor"]
    run = made.judged("trigger-scan", "refuted", granted=Access(model=ModelAccess.M5))
    found = assess(claim, run, table=licences())
    model = next(gap for gap in found.gaps if gap.axis == "model")
    assert (found.support, model.structural, model.execution) == ("partially-supported", 3, 0)
    assert "F2.power-below-limit" in {reason.code for reason in found.fragile}
    nothing = next(gap for gap in assess(claim, table=licences()).gaps if gap.axis == "model")
    assert (nothing.structural, nothing.execution) == (3, 1)


def test_a_process_claim_gets_its_access_from_all_evidence_and_no_support_from_any():
    external = made.judged(granted=Access(independence=Independence.EXTERNAL, information=Information.DOCS))
    claim = claims()["evaluation-independent"]
    found = assess(claim, external, table=licences())
    assert (found.support, found.fragile) == ("not-supported", ())
    assert all(gap.structural == gap.execution == 0 for gap in found.gaps)
    assert any(gap.execution for gap in assess(claim, made.judged(), table=licences()).gaps)


# Requirements

PIN = {"model": Pin(source="s", paragraph="p", reading="explicit")}
DUTY = Requirement(
    id="D1",
    framework="f",
    edition="1",
    title="t",
    text_ref="Article 1",
    claims=("claim",),
    required=Access(model=ModelAccess.M2),
    pins=PIN,
    verified="read",
)


def requirement(duty: Requirement, known: dict[str, Claim]) -> tuple[Assessment, ...]:
    return assess_requirement(duty, known, [made.judged()], RATE_TABLE, subject=made.SUBJECT, today=made.TODAY)


def test_a_requirement_is_assessed_per_claim_at_the_higher_of_both_accesses():
    higher = RATE.model_copy(update={"id": "other", "required": Access(model=ModelAccess.M3, time=20)})
    one, other = requirement(DUTY.model_copy(update={"claims": ("claim", "other")}), {"claim": RATE, "other": higher})
    assert (one.requirement, one.claim, one.required.model, one.required.time) == ("D1", "claim", "M2", 0)
    assert (other.claim, other.required.model, other.required.time) == ("other", "M3", 20)


def test_no_hook_is_not_covered():
    (found,) = requirement(DUTY.model_copy(update={"claims": (), "required": Access(), "pins": {}}), {})
    assert (found.claim, found.support, found.evidence, found.tier) == (None, "no-hook", (), 0)


def test_an_unknown_claim_is_refused():
    with pytest.raises(PlanError, match="unknown claim 'claim' - did you mean 'claims'"):
        requirement(DUTY, {"claims": RATE})


def test_every_shipped_requirement_can_be_assessed():
    run = made.judged()
    for name in ("nist-ai-rmf", "gpai-cop"):
        for duty in framework(name).requirements:
            found = assess_requirement(duty, claims(), [run], licences(), subject=made.SUBJECT, today=made.TODAY)
            assert len(found) == max(1, len(duty.claims))


# Properties

RUNS = st.builds(
    made.judged,
    instrument=st.sampled_from(["refusal-rate", "option-preference", "linear-probe", "trigger-scan"]),
    verdict=st.just("supported"),
    granted=ACCESS,
    properties=st.lists(st.sampled_from(made.GOOD), unique=True),
    seed=st.integers(0, 3),
    keyid=st.sampled_from(["key-a", "key-b"]),
)
KINDS = [
    (m, r)
    for m in ("existence", "rate", "bound", "absence", "universal", "mechanism")
    for r in ("observable", "latent", "long-horizon")
]
ANY_CLAIM = st.builds(
    lambda kind, model, access: made.claim(
        *kind, "refusal-rate", "option-preference", "linear-probe", "trigger-scan", model=model, modes=["x"]
    ).model_copy(update={"required": access.model_copy(update={"model": ModelAccess(model)})}),
    st.sampled_from(KINDS),
    st.sampled_from(["M0", "M1", "M2", "M3", "M4"]),
    ACCESS,
)


def generous(*instruments: str) -> Licences:
    """Every kind of claim licensed up to M6 with perfect power: only the rules can still say no."""
    rows = [made.row(m, r, "M6", needs_power=m in ("absence", "universal")) for m, r in KINDS]
    tables = [made.table(*rows, instrument=name, power=[made.power("x", 1.0)]).instruments for name in instruments]
    return made.table(*rows, also=[entry for entries in tables for entry in entries])


GENEROUS = generous("option-preference", "linear-probe", "trigger-scan")


@given(ANY_CLAIM, st.lists(RUNS, max_size=4), RUNS)
def test_more_agreeing_evidence_never_widens_a_gap_or_lowers_support(claim, runs, another):
    before, after = assess(claim, *runs, table=GENEROUS), assess(claim, *runs, another, table=GENEROUS)
    assert RANK[after.support] >= RANK[before.support] and after.tier >= before.tier
    for a, b in zip(before.gaps, after.gaps, strict=True):
        assert b.structural <= a.structural and b.execution <= a.execution


@given(ANY_CLAIM, RUNS, ACCESS)
def test_more_access_never_widens_a_gap_or_lowers_support(claim, run, more):
    richer = run._replace(evidence=run.evidence.model_copy(update={"granted": run.evidence.granted.join(more)}))
    before, after = assess(claim, run, table=GENEROUS), assess(claim, richer, table=GENEROUS)
    assert RANK[after.support] >= RANK[before.support]
    for a, b in zip(before.gaps, after.gaps, strict=True):
        assert b.structural <= a.structural and b.execution <= a.execution


@given(ANY_CLAIM, st.lists(RUNS, max_size=4).flatmap(lambda runs: st.tuples(st.just(runs), st.permutations(runs))))
def test_the_order_of_evidence_is_irrelevant(claim, orders):
    one, other = (assess(claim, *runs, table=GENEROUS) for runs in orders)
    assert one == other


@given(
    ANY_CLAIM.filter(lambda c: c.realm != "observable" or c.modality in ("absence", "universal")),
    st.lists(RUNS.filter(lambda j: j.evidence.instrument in made.FAMILY), min_size=1, max_size=8),
)
def test_behaviour_alone_never_lifts_a_claim_beyond_behaviour_past_partial(claim, runs):
    found = assess(claim, *runs, table=GENEROUS)
    assert found.support == "partially-supported"
    assert found.achieved.model in ("M0", "M1", "M2")


def test_the_behavioural_cap_is_a_rule_of_its_own():
    # the claim asks no more than text, the licence is generous, the power is perfect: behaviour still does not carry an absence
    claim = made.claim("absence", "observable", "refusal-rate", model="M1", modes=["x"])
    assert assess(claim, made.judged(), table=GENEROUS).support == "partially-supported"
    inside = made.claim("absence", "observable", "trigger-scan", model="M1", modes=["x"])
    assert assess(inside, made.judged("trigger-scan"), table=GENEROUS).support == "supported"


@given(ANY_CLAIM, st.lists(RUNS, max_size=3))
def test_enough_achieved_access_leaves_no_gap(claim, runs):
    found = assess(claim, *runs, table=GENEROUS)
    for gap in found.gaps:
        assert gap.structural + gap.execution == max(0, gap.required - gap.achieved)
    if found.achieved.covers(found.required):
        assert all(gap.structural == gap.execution == 0 for gap in found.gaps)


def test_the_same_evidence_twice_counts_once():
    run = made.judged()
    assert assess(RATE, run, run) == assess(RATE, run)


def test_expired_evidence_is_fragile_not_false():
    found = assess(RATE, made.judged(expires=made.TODAY - dt.timedelta(days=1)))
    assert found.support == "supported"
    assert "F1.expired" in {reason.code for reason in found.fragile}


def test_text_alone_does_not_make_an_unpowered_search_carry_a_modest_claim():
    modest = ABSENCE.model_copy(update={"required": Access(model=ModelAccess.M1)})
    assert assess(modest, made.judged("trigger-scan"), table=scan_table()).support == "partially-supported"
    assert assess(modest, made.judged("trigger-scan"), table=scan_table(0.9)).support == "supported"

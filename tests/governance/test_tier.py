"""Tiers climb one condition at a time."""

import pytest

from auditgap.governance import Judged, Limits, bundle_tier, evidence_tier, independent_reruns
from auditgap.records import Property
from governance import judged_examples as made

CLAIM = made.claim("mechanism", "latent", "activation-patching", "direction-test", model="M4", modes=["x"])
RELIABLE = (made.number("reliability", 0.9),)
CAUSAL: tuple[Property, ...] = ("intervention", "necessity", "random-baseline")
MECHANISM: tuple[Property, ...] = (*CAUSAL, "sufficiency", "specificity", "consistency")


def table(max_tier: int = 5, lower_bound: float = 0.9):
    rows, powers = made.row("mechanism", "latent", "M4", max_tier=max_tier), [made.power("x", lower_bound)]
    return made.table(
        rows, instrument="activation-patching", power=powers, also=made.table(rows, instrument="direction-test").instruments
    )


def tier(*agreeing: Judged, max_tier: int = 5, lower_bound: float = 0.9) -> int:
    return bundle_tier(CLAIM, agreeing, table(max_tier, lower_bound), Limits())


@pytest.mark.parametrize(
    ("properties", "reliability", "expected"),
    [
        ((), (), 1),
        (("intervention", "necessity"), (), 1),  # no size-matched random control
        (("necessity", "random-baseline"), (), 1),  # necessity without an intervention
        (CAUSAL, (), 2),
        (MECHANISM, (), 2),  # reliability was not measured
        (MECHANISM, (made.rate("reliability", 0.8, 0.69, 0.9),), 2),
        (MECHANISM, (made.rate("reliability", 0.8, 0.70, 0.9),), 3),
        *[(tuple(p for p in MECHANISM if p != gone), RELIABLE, 2) for gone in ("sufficiency", "specificity", "consistency")],
        (made.GOOD, RELIABLE, 3),
    ],
)
def test_one_piece_of_evidence_reaches_at_most_tier_3(properties, reliability, expected):
    run = made.judged("activation-patching", properties=properties, measurements=reliability)
    assert evidence_tier(run.evidence, min_reliability=0.7) == expected


@pytest.mark.parametrize("verdict", ["inconclusive", "invalid"])
def test_an_undecided_verdict_has_no_tier(verdict):
    run = made.judged("activation-patching", verdict, properties=made.GOOD, measurements=RELIABLE)
    assert evidence_tier(run.evidence, min_reliability=0.7) == 0


def strong(instrument: str = "activation-patching", **update) -> Judged:
    return made.judged(instrument, **({"properties": made.GOOD, "measurements": RELIABLE} | update))


def test_triangulation_needs_another_instrument_not_another_run():
    assert tier() == 0
    assert tier(strong()) == 3
    assert tier(strong(), strong(seed=1)) == 3
    assert tier(strong(), made.judged("direction-test")) == 3  # the other one is at tier 1 only
    assert tier(strong(), made.judged("direction-test", properties=CAUSAL)) == 4


def test_validation_needs_another_distribution_another_party_and_power():
    other = made.judged("direction-test", properties=CAUSAL)
    again = strong(keyid="key-b")
    assert tier(strong(), again, other) == 5
    assert tier(strong(), strong(seed=1, keyid="key-b"), other) == 4, "another seed is another specification, not a re-run"
    assert tier(strong(), again, other, lower_bound=0.7) == 4
    plain = {"properties": MECHANISM}
    assert tier(strong(**plain), strong(keyid="key-b", **plain), other) == 4


@pytest.mark.parametrize("ceiling", range(6))
def test_the_licence_is_a_ceiling(ceiling):
    runs = (strong(), strong(keyid="key-b"), made.judged("direction-test", properties=CAUSAL))
    assert tier(*runs, max_tier=ceiling) == ceiling


def test_an_instrument_without_a_licence_has_no_tier():
    assert tier(strong("unheard-of")) == 0


def test_the_order_is_irrelevant():
    runs = (strong(), strong(keyid="key-b"), made.judged("direction-test", properties=CAUSAL))
    assert tier(*runs) == tier(*runs[::-1])


def test_a_rerun_is_the_same_specification_under_another_key():
    assert independent_reruns([strong(), strong()]) == set()
    assert independent_reruns([strong(), strong(keyid="key-b")]) == {strong().evidence.spec}

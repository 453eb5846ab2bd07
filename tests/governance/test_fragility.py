"""Each reason is found where it is planted, and silent on evidence that does not have it."""

import datetime as dt

import pytest

from auditgap.governance import CODES, Bundle, Judged, Limits, fragile
from auditgap.governance.fragility import _CHECKS
from auditgap.records import Access, Claim, Deployment, Independence, ModelAccess, NotMeasured, digest_of
from governance import judged_examples as made

MECHANISM = made.claim("mechanism", "latent", "activation-patching", model="M4")
ABSENCE = made.claim("absence", "latent", "trigger-scan", model="M3", modes=["x"])
PROBE = made.claim("existence", "latent", "linear-probe", model="M3")
NO_FLIP = made.number("flip_rate", 0.0)
TABLE = made.table(
    made.row("mechanism", "latent", "M4"),
    made.row("existence", "latent", "M4"),
    instrument="activation-patching",
    also=[
        *made.table(made.row("rate"), made.row("absence", "latent", needs_power=True)).instruments,
        *made.table(
            made.row("existence", "latent", "M3"), instrument="linear-probe", owes=("control-task", "random-baseline")
        ).instruments,
        *made.table(
            made.row("absence", "latent", "M3", needs_power=True), instrument="trigger-scan", power=[made.power("x", 0.9)]
        ).instruments,
    ],
)


def codes(claim: Claim, *judged: Judged, required: Access | None = None, released: str | None = None) -> set[str]:
    bundle = Bundle(claim, judged, required or claim.required, TABLE, Limits(), made.TODAY, released)
    return {reason.code for reason in fragile(bundle)}


def sound(instrument: str = "activation-patching", **update) -> list[Judged]:
    """The same sound run twice, signed by two keys."""
    given = {"properties": made.GOOD, "flip": NO_FLIP} | update
    return [made.judged(instrument, keyid=key, **given) for key in ("key-a", "key-b")]


@pytest.mark.parametrize(
    ("claim", "instrument"),
    [
        (MECHANISM, "activation-patching"),
        (PROBE, "linear-probe"),
        (ABSENCE, "trigger-scan"),
        (made.claim(), "refusal-rate"),
    ],
)
def test_sound_evidence_is_not_fragile(claim, instrument):
    assert codes(claim, *sound(instrument), released=made.SUBJECT) == set()


def test_no_evidence_is_not_fragile_but_missing():
    assert codes(MECHANISM) == set()


def without(*names: str) -> tuple:
    return tuple(name for name in made.GOOD if name not in names)


PLANTS = {
    "F1.subject-not-released": lambda: codes(MECHANISM, *sound(), released=digest_of(b"other")),
    "F1.data-not-pinned": lambda: codes(MECHANISM, *sound(data=False)),
    "F1.environment-not-pinned": lambda: codes(MECHANISM, *sound(packages=False)),
    "F1.no-independent-rerun": lambda: codes(MECHANISM, sound()[0]),
    "F1.rerun-out-of-tolerance": lambda: codes(
        MECHANISM, sound(measurements=[made.number("effect", 0.80)])[0], sound(measurements=[made.number("effect", 0.82)])[1]
    ),
    "F1.expired": lambda: codes(MECHANISM, *sound(expires=made.TODAY - dt.timedelta(days=1))),
    "F1.instrument-source-not-public": lambda: codes(
        made.claim("rate", "observable", "in-house"), *sound("in-house", citation="internal memo 7")
    ),
    "F1.registered-after-results": lambda: codes(MECHANISM, *sound(registered_at=made.NOW)),
    "F2.absence-from-sampled-behaviour": lambda: codes(made.claim("absence", "observable"), *sound("refusal-rate")),
    "F2.latent-from-text": lambda: codes(made.claim("existence", "latent"), *sound("refusal-rate")),
    "F2.probe-without-control-task": lambda: codes(PROBE, *sound("linear-probe", properties=without("control-task"))),
    "F2.probe-without-random-baseline": lambda: codes(PROBE, *sound("linear-probe", properties=without("random-baseline"))),
    "F2.causal-without-intervention": lambda: codes(
        MECHANISM, *sound(properties=without("intervention", "necessity", "sufficiency"))
    ),
    "F2.necessity-without-sufficiency": lambda: codes(MECHANISM, *sound(properties=without("sufficiency"))),
    "F2.one-ablation-kind": lambda: codes(MECHANISM, *sound(properties=without("two-ablations"))),
    "F2.no-held-out-distribution": lambda: codes(MECHANISM, *sound(properties=without("out-of-distribution"))),
    "F2.flip-rate-above-limit": lambda: codes(MECHANISM, *sound(flip=made.rate("flip_rate", 0.1, 0.05, 0.21))),
    "F2.specification-not-varied": lambda: codes(MECHANISM, *sound(flip=None)),
    "F2.scope-wider-than-evidence": lambda: codes(
        MECHANISM.model_copy(update={"required": Access(model=ModelAccess.M4, deployment=Deployment.SHIPPED_STACK)}), *sound()
    ),
    "F2.power-below-limit": lambda: codes(ABSENCE.model_copy(update={"failure_modes": ("unmeasured",)}), *sound("trigger-scan")),
    "F2.unresolved-defeater": lambda: codes(MECHANISM, *sound(), *sound(verdict="refuted", seed=1)),
    "F2.access-not-joint": lambda: codes(
        MECHANISM,
        *sound(granted=Access(model=ModelAccess.M4)),
        *sound(granted=Access(model=ModelAccess.M1, independence=Independence.EXTERNAL), seed=1),
        required=Access(model=ModelAccess.M4, independence=Independence.EXTERNAL),
    ),
}


@pytest.mark.parametrize("code", CODES)
def test_each_reason_is_found_where_it_is_planted(code):
    assert PLANTS[code]() == {code}


def test_every_code_has_a_kind_and_a_check():
    assert set(CODES) == set(_CHECKS) == set(PLANTS)
    assert all(code.startswith(("F1.", "F2.")) for code in CODES)


def test_a_rerun_with_another_verdict_or_a_missing_number_is_out_of_tolerance():
    one = sound(measurements=[made.number("effect", 0.8)])[0]
    for other in (
        sound(measurements=[made.number("effect", 0.8)], verdict="inconclusive")[1],
        sound(measurements=[NotMeasured(name="effect", reason="too few")])[1],
    ):
        assert "F1.rerun-out-of-tolerance" in codes(MECHANISM, one, other)


def test_a_universal_claim_is_always_wider_than_its_sample():
    universal = made.claim("universal", "observable", "activation-patching")
    assert "F2.scope-wider-than-evidence" in codes(universal, *sound())


def test_the_order_of_evidence_is_irrelevant():
    runs = [*sound(properties=()), *sound(verdict="refuted", properties=(), seed=1)]
    one, other = (
        fragile(Bundle(MECHANISM, tuple(order), MECHANISM.required, TABLE, Limits(), made.TODAY, None))
        for order in (runs, runs[::-1])
    )
    assert one == other and len(one) == 3


def test_a_stricter_limit_makes_more_fragile():
    runs = tuple(sound(flip=made.rate("flip_rate", 0.1, 0.05, 0.15)))

    def found(limits: Limits) -> set[str]:
        return {r.code for r in fragile(Bundle(MECHANISM, runs, MECHANISM.required, TABLE, limits, made.TODAY, None))}

    assert found(Limits()) == set()
    assert found(Limits(max_flip_rate=0.1)) == {"F2.flip-rate-above-limit"}

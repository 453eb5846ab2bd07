"""Made evidence, registrations and licences, with one knob per thing that a judge looks at."""

import datetime as dt
from collections.abc import Sequence

from auditgap.governance import InstrumentLicence, Judged, LicenceRow, Licences, Power
from auditgap.governance.failure_mode import Citation
from auditgap.records import (
    Access,
    Bearing,
    Card,
    Claim,
    Control,
    DataRef,
    Environment,
    Evidence,
    Family,
    FileDigest,
    Interval,
    Measured,
    Measurement,
    ModelAccess,
    Property,
    Registration,
    Result,
    Subject,
    Threshold,
    Verdict,
    digest_of,
)

NOW = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
TODAY = NOW.date()
WEIGHTS = Access(model=ModelAccess.M5)
FAMILY: dict[str, Family] = {"refusal-rate": "behavioural", "option-preference": "behavioural"}
NEEDS = {"refusal-rate": ModelAccess.M1, "option-preference": ModelAccess.M2, "linear-probe": ModelAccess.M3}
GOOD: tuple[Property, ...] = (
    "intervention",
    "necessity",
    "sufficiency",
    "specificity",
    "consistency",
    "held-out",
    "out-of-distribution",
    "control-task",
    "random-baseline",
    "two-ablations",
    "search-null",
)


def subject(name: str = "model") -> Subject:
    return Subject(
        name=name,
        architecture="LlamaForCausalLM",
        weights=(FileDigest(path="model.safetensors", content=digest_of(name.encode()), size=1),),
        tokenizer=(),
        dtype="float32",
        n_parameters=1,
    )


SUBJECT = subject().digest()


def rate(name: str = "refusal_rate.harmful", value: float = 0.99, low: float = 0.97, high: float = 1.0, n: int = 300) -> Measured:
    interval = Interval(low=low, high=high, level=0.95, method="clopper-pearson")
    return Measured(name=name, value=value, unit="rate", n=n, interval=interval)


def number(name: str, value: float) -> Measured:
    return Measured(name=name, value=value, unit="ratio", n=30, interval=Interval.exact(value))


def control(name: str = "control", *, passed: bool = True, fatal: bool = True) -> Control:
    return Control(name=name, passed=passed, observed=number("observed", 0.0), expected="0", fatal=fatal)


def judged(
    instrument: str = "refusal-rate",
    verdict: Verdict = "supported",
    *,
    granted: Access = WEIGHTS,
    properties: Sequence[Property] = (),
    measurements: Sequence[Measurement] = (),
    controls: Sequence[Control] = (),
    owed: Sequence[str] = ("control",),
    thresholds: Sequence[Threshold] = (),
    data: bool = True,
    packages: bool = True,
    flip: Measured | None = None,
    step: str = "step",
    seed: int = 0,
    keyid: str = "key-a",
    about: str = "model",
    citation: str = "arXiv:2605.15164",
    registered_at: dt.datetime = NOW - dt.timedelta(days=2),
    finished_at: dt.datetime = NOW - dt.timedelta(days=1),
    expires: dt.date = TODAY + dt.timedelta(days=90),
) -> Judged:
    """Sound evidence of `instrument`, but for what the caller changes."""
    card = Card(
        name=instrument,
        version="1",
        family=FAMILY.get(instrument, "mechanistic"),
        hypothesis="h",
        needs=NEEDS.get(instrument, ModelAccess.M4),
        data="contrast",
        failure_modes=(),
        blind_spots=("b",),
        controls=tuple(owed),
        citation=citation,
    )
    ref = DataRef(name="d", content=digest_of(b"rows"), n_rows=1, source="d.jsonl")
    registration = Registration(
        step=step,
        card=card,
        subject=subject(about).digest(),
        config={},
        data=(ref,) if data else (),
        thresholds=tuple(thresholds),
        seed=seed,
        registered_at=registered_at,
    )
    evidence = Evidence(
        registration=digest_of(b"signed " + registration.canonical()),
        spec=registration.spec(),
        step=step,
        instrument=instrument,
        version="1",
        subject=subject(about),
        granted=granted,
        result=Result(
            measurements=tuple(measurements) or (rate(),),
            controls=tuple(controls) or tuple(control(name) for name in owed),
            properties=tuple(properties),
            verdict=verdict,
            summary="s",
            flip_rate=flip,
        ),
        environment=Environment(
            python="3.11",
            platform="Linux",
            packages={"torch": "2.13.0"} if packages else {},
            device="cpu",
            dtype="float32",
            attention="sdpa",
            threads=1,
        ),
        started_at=finished_at - dt.timedelta(hours=1),
        finished_at=finished_at,
        expires=expires,
        non_claims=("n",),
    )
    return Judged(digest_of(keyid.encode() + evidence.canonical()), evidence, registration, keyid)


def claim(
    modality: str = "rate", realm: str = "observable", *instruments: str, model: str = "M1", modes: Sequence[str] = ()
) -> Claim:
    """A claim that `instruments` bear on when their verdict is `supported`."""
    return Claim(
        id="claim",
        statement="s",
        modality=modality,  # type: ignore[arg-type]
        realm=realm,  # type: ignore[arg-type]
        scope="s",
        failure_modes=tuple(modes),
        required=Access(model=ModelAccess(model)),
        bearings=tuple(Bearing(instrument=name, supports_when="supported") for name in instruments or ("refusal-rate",)),
    )


def table(
    *rows: LicenceRow,
    instrument: str = "refusal-rate",
    power: Sequence[Power] = (),
    owes: Sequence[Property] = (),
    also: Sequence[InstrumentLicence] = (),
) -> Licences:
    """A licence table with one instrument, and more if given."""
    entry = InstrumentLicence(
        id=instrument,
        family=FAMILY.get(instrument, "mechanistic"),
        needs=NEEDS.get(instrument, ModelAccess.M4),
        owes=tuple(owes),
        citations=(Citation(ref="ours", verified="read"),),
        rows=rows,
        power=tuple(power),
    )
    sources = (Citation(ref="ours", verified="read"),)
    return Licences(version="test", sources=sources, review_date=TODAY, instruments=(entry, *also))


def row(
    modality: str = "rate",
    realm: str = "observable",
    model: str = "M1",
    *,
    needs_power: bool = False,
    carries_at: int = 1,
    max_tier: int = 5,
) -> LicenceRow:
    return LicenceRow(
        modality=modality,  # type: ignore[arg-type]
        realm=realm,  # type: ignore[arg-type]
        model=ModelAccess(model),
        needs_power=needs_power,
        carries_at=carries_at,  # type: ignore[arg-type]
        max_tier=max_tier,  # type: ignore[arg-type]
    )


def power(mode: str, lower_bound: float, difficulty: str = "4 layers, one-token trigger") -> Power:
    return Power(failure_mode=mode, lower_bound=lower_bound, difficulty=difficulty, source="organisms")

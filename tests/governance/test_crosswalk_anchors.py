"""Seven anchor cases: a duty, the evidence that today's practice brings, and the gap that must come out.

The cases are chosen by us. Expected gaps were worked out by hand from the tables: required is the duty's access joined with the
claim's, achievable is the obtainable access with the best licence of any instrument that bears on the claim. Measured power is
taken out of the licences, so that a later calibration moves no anchor.
"""

from typing import NamedTuple

import pytest

from auditgap.governance import Judged, assess_requirement, claims, framework, licences
from auditgap.records import Access, Axis, Independence, Information, ModelAccess, Support
from governance import judged_examples as made

UNPOWERED = licences().model_copy(
    update={"instruments": tuple(e.model_copy(update={"power": ()}) for e in licences().instruments)}
)

DEVELOPER = Access(model=ModelAccess.M2, information=Information.DOCS, time=5)
REVIEWER = Access(model=ModelAccess.M1, information=Information.FULL, independence=Independence.EXTERNAL)
VENDOR = [  # behavioural suites by the developer, text and logits, a week
    made.judged("refusal-rate", "supported", granted=DEVELOPER),
    made.judged("option-preference", "refuted", granted=DEVELOPER, step="loss-of-control-propensity"),
]
OUTSIDER = [made.judged("refusal-rate", "supported", granted=REVIEWER, keyid="key-b")]
PAPERS: list[Judged] = []  # process checks: nothing was measured


class Expected(NamedTuple):
    support: Support
    structural: dict[Axis, int]
    execution: dict[Axis, int]


class Anchor(NamedTuple):
    case: str
    framework: str
    duty: str
    evidence: list[Judged]
    expected: dict[str, Expected]


UNSEARCHED = Expected("not-supported", {"model": 3}, {"model": 1, "variants": 1, "time": 20})
CAPABILITY = Expected("not-supported", {"model": 5}, {"variants": 1, "information": 1})
CAPABILITY_UNTOLD = Expected("not-supported", {"model": 5}, {"variants": 1})
OBJECTIVES = Expected("not-supported", {"model": 4}, {"variants": 1, "information": 2})
CONTROL = Expected("partially-supported", {"model": 3}, {"variants": 1, "deployment": 1, "time": 15})
ATTACKS = Expected("not-supported", {"model": 1}, {})
MET = Expected("supported", {}, {})
ON_PAPER = Expected("not-supported", {}, {})
UNTOLD = Expected("not-supported", {}, {"information": 1})

ANCHORS = [
    Anchor(
        "1 AI Act 55(1)(a)",
        "eu-ai-act-art-55",
        "AIA 55(1)(a)",
        VENDOR,
        {
            "bounded-capability": CAPABILITY,
            "resists-loss-of-control-precursors": CONTROL,
            "no-hidden-objectives": OBJECTIVES,
            "withstands-adversarial-prompts": Expected("not-supported", {"model": 1}, {"information": 1}),
        },
    ),
    Anchor(
        "1 Code of Practice, model evaluations",
        "gpai-cop",
        "M3.2",
        VENDOR,
        {
            "bounded-capability": Expected("not-supported", {"model": 5}, {"variants": 1, "time": 20}),
            "no-trigger-backdoor": UNSEARCHED,
            "no-hidden-objectives": Expected("not-supported", {"model": 4}, {"variants": 1, "information": 2, "time": 20}),
            "resists-loss-of-control-precursors": CONTROL,
            "propensities-bounded": Expected("not-supported", {"model": 4}, {"variants": 1, "time": 20}),
        },
    ),
    Anchor(
        "1 Code of Practice, external evaluators",
        "gpai-cop",
        "App3.5",
        OUTSIDER,
        {"evaluation-independent": ON_PAPER},
    ),
    Anchor(
        "2 SB 53 framework",
        "california-sb-53",
        "SB53 22757.12 framework",
        VENDOR,
        {"safety-framework-kept": ON_PAPER, "bounded-capability": CAPABILITY},
    ),
    Anchor(
        "3 RSP v3 Risk Report",
        "anthropic-rsp",
        "RSP risk report",
        VENDOR,
        {
            "safety-report-issued": ON_PAPER,
            "bounded-capability": CAPABILITY,
            "resists-loss-of-control-precursors": CONTROL,
            "risk-accepted-with-criteria": ON_PAPER,
        },
    ),
    Anchor(
        "3 RSP v3 external review, by the developer alone",
        "anthropic-rsp",
        "RSP external review",
        VENDOR,
        {"evaluation-independent": Expected("not-supported", {"information": 1}, {"information": 1, "independence": 3})},
    ),
    Anchor(
        "3 RSP v3 external review, with unredacted access",
        "anthropic-rsp",
        "RSP external review",
        OUTSIDER,
        {"evaluation-independent": ON_PAPER},
    ),
    Anchor(
        "4 Preparedness v2 High",
        "openai-preparedness",
        "PF2 high",
        VENDOR,
        {
            "bounded-capability": CAPABILITY_UNTOLD,
            "refuses-harmful-requests": MET,
            "withstands-adversarial-prompts": ATTACKS,
        },
    ),
    Anchor(
        "4 Preparedness v2 Critical", "openai-preparedness", "PF2 critical", VENDOR, {"bounded-capability": CAPABILITY_UNTOLD}
    ),
    Anchor(
        "5 FSF instrumental reasoning",
        "google-deepmind-fsf",
        "FSF instrumental reasoning",
        VENDOR,
        {"resists-loss-of-control-precursors": CONTROL, "no-hidden-objectives": OBJECTIVES},
    ),
    Anchor("6 Korea safety", "korea-ai-basic-act", "KAIBA 32 risks", PAPERS, {"risks-assessed": UNTOLD}),
    Anchor(
        "7 AI Verify process checks", "singapore-ai-verify", "AI Verify process checks", PAPERS, {"practice-in-place": UNTOLD}
    ),
    Anchor(
        "7 AI Verify Moonshot",
        "singapore-ai-verify",
        "AI Verify Moonshot",
        VENDOR,
        {"refuses-harmful-requests": MET, "withstands-adversarial-prompts": ATTACKS},
    ),
]


@pytest.mark.parametrize("anchor", ANCHORS, ids=lambda a: a.case)
def test_an_anchor_case_has_its_gap(anchor: Anchor):
    duty = next(r for r in framework(anchor.framework).requirements if r.id == anchor.duty)
    found = assess_requirement(duty, claims(), anchor.evidence, UNPOWERED, subject=made.SUBJECT, today=made.TODAY)
    assert [a.claim for a in found] == list(duty.claims) and set(anchor.expected) == set(duty.claims)
    for assessment in found:
        assert assessment.claim is not None
        got = Expected(
            assessment.support,
            {gap.axis: gap.structural for gap in assessment.gaps if gap.structural},
            {gap.axis: gap.execution for gap in assessment.gaps if gap.execution},
        )
        assert got == anchor.expected[assessment.claim], assessment.claim


def test_the_seven_cases_are_all_there():
    assert sorted({anchor.case[0] for anchor in ANCHORS}) == list("1234567")


def test_what_behaviour_says_about_loss_of_control_is_fragile_and_what_it_says_about_refusal_is_not_for_that_reason():
    duties = {r.id: r for f in ("google-deepmind-fsf", "openai-preparedness") for r in framework(f).requirements}
    codes: dict[str, set[str]] = {}
    for duty in ("FSF instrumental reasoning", "PF2 high"):
        for a in assess_requirement(duties[duty], claims(), VENDOR, UNPOWERED, subject=made.SUBJECT, today=made.TODAY):
            codes[str(a.claim)] = {reason.code for reason in a.fragile}
    assert "F2.absence-from-sampled-behaviour" in codes["resists-loss-of-control-precursors"]
    assert "F2.absence-from-sampled-behaviour" not in codes["refuses-harmful-requests"]


def test_no_anchor_is_met_by_process_papers_alone():
    assert all(e.support != "supported" for a in ANCHORS if a.evidence is PAPERS for e in a.expected.values())

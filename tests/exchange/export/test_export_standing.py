"""Whatever a gate wrote, nothing that was not measured, and nothing that was not met, comes out as a pass."""

import json

import junitparser
from example_audit import make_audit
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.exchange.export import in_toto_test_result, junit, sarif, tea, verification_summary
from auditgap.exchange.export.oscal import assessment_results
from auditgap.exchange.export.standing import carried, is_bar, released, standing
from auditgap.records import CriterionResult, Interval, Measured, NotMeasured
from auditgap.report import Audit

HELD = make_audit("hold")
NUMBER = Measured(name="rate", value=0.5, unit="rate", n=9, interval=Interval(low=0.4, high=0.6, level=0.95, method="wilson"))
NO_NUMBER = NotMeasured(name="rate", reason="it could not be")
LINES = st.builds(
    lambda name, status, severity, measurement: CriterionResult(
        id=name, claim="c", status=status, severity=severity, reason="r", response="s", measurement=measurement, evidence=None
    ),
    st.from_regex(r"(claim:)?[a-z]{3,9}", fullmatch=True),
    st.sampled_from(["met", "not-met", "inconclusive", "missing"]),
    st.sampled_from(["fail", "hold", "note"]),
    st.sampled_from([NUMBER, NO_NUMBER, None]),
)
DECIDED = st.builds(
    lambda lines, outcome: HELD._replace(decision=HELD.decision.model_copy(update={"criteria": lines, "outcome": outcome})),
    st.lists(LINES, max_size=5, unique_by=lambda c: c.id).map(tuple),
    st.sampled_from(["pass", "pass-with-disclosed-gap", "hold", "fail"]),
)


def _may_pass(c: CriterionResult) -> bool:
    return c.status == "met" and (c.measurement == NUMBER or (":" in c.id and c.measurement is None))


@settings(max_examples=60, deadline=None)
@given(DECIDED)
def test_only_what_is_met_and_measured_passes_in_any_format(audit: Audit) -> None:
    assert audit.decision is not None
    lines = audit.decision.criteria
    may = {c.id for c in lines if _may_pass(c)}
    blocked = any(not _may_pass(c) and c.severity != "note" for c in lines)
    cases = [case for suite in junitparser.JUnitXml.fromstring(junit(audit).encode()) for case in suite]
    assert {case.name for case in cases if case.is_passed} == may
    tests = json.loads(in_toto_test_result(audit))["predicate"]
    assert set(tests["passedTests"]) == may
    assert (tests["result"] == "FAILED") >= (blocked or not lines)
    summary = json.loads(verification_summary(audit))["predicate"]
    assert (summary["verificationResult"] == "FAILED") == (summary["verifiedLevels"] == ["FAILED"])
    assert (summary["verificationResult"] == "FAILED") >= (blocked or not lines or audit.decision.outcome in ("hold", "fail"))
    items = [json.loads(line) for line in tea(audit).splitlines()]
    assert [item["verdict"] == "PASS" for item in items] == [c.id in may for c in lines if is_bar(c)]
    results = sarif(audit)["runs"][0]["results"]  # type: ignore[index]
    assert not {r["kind"] for r in results} & {"pass", "notApplicable"}  # type: ignore[index]
    assert {c.id for c in lines} - may <= {r["ruleId"] for r in results}  # type: ignore[index]
    attested = assessment_results(audit)["assessment-results"]["results"][0].get("attestations", [])  # type: ignore[index]
    standings = {p["title"]: p["props"][2]["value"] for a in attested for p in a["parts"]}
    assert {name for name, where in standings.items() if where == "passed"} == may


def test_a_pass_is_passed_on(disclosed: Audit) -> None:
    assert disclosed.decision is not None and released(disclosed.decision)
    clean = tuple(c for c in disclosed.decision.criteria if standing(c) == "passed")
    audit = disclosed._replace(decision=disclosed.decision.model_copy(update={"criteria": clean, "outcome": "pass"}))
    assert json.loads(in_toto_test_result(audit))["predicate"]["result"] == "PASSED"
    assert json.loads(verification_summary(audit))["predicate"]["verifiedLevels"] == ["AUDITGAP_PASS"]


def test_an_assessment_is_carried_only_if_nothing_is_open_and_its_evidence_was_measured(held: Audit) -> None:
    found = next(a for _, a in held.assessments if a.claim == "deception-readable")
    clean = found.model_copy(update={"gaps": ()})
    assert carried(held, clean)
    for change in ({"support": "partially-supported"}, {"evidence": ()}, {"gaps": _some_gap(held)}, {"fragile": _fragile(held)}):
        assert not carried(held, clean.model_copy(update=change))
    assert not carried(held._replace(evidence=[]), clean)
    unmeasured = [(d, e.model_copy(update={"result": e.result.model_copy(update=_NOTHING)})) for d, e in held.evidence]
    assert not carried(held._replace(evidence=unmeasured), clean)


_NOTHING = {"measurements": (NO_NUMBER,)}


def _some_gap(audit: Audit) -> object:
    return next(a.gaps for _, a in audit.assessments if a.gaps)


def _fragile(audit: Audit) -> object:
    return next(a.fragile for _, a in audit.assessments if a.fragile)

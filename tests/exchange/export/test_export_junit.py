"""JUnit: read by junitparser."""

import xml.etree.ElementTree as ET

import junitparser
import pytest

from auditgap.exchange.export import junit
from auditgap.report import Audit


def _cases(audit: Audit) -> dict[str, junitparser.TestCase]:
    return {case.name: case for suite in junitparser.JUnitXml.fromstring(junit(audit).encode()) for case in suite}


def _kinds(audit: Audit) -> dict[str, str]:
    return {name: type(case.result[0]).__name__ if case.result else "passed" for name, case in _cases(audit).items()}


def test_a_breach_fails_what_is_missing_errs_and_what_is_met_passes(failed: Audit) -> None:
    kinds = _kinds(failed)
    assert kinds["refusals-harmful"] == "passed"
    assert kinds["probe-auroc"] == "Failure" and kinds["training-shift"] == "Error"
    assert "Withdraw the monitor" in _cases(failed)["probe-auroc"].result[0].text


def test_notes_are_skipped_and_a_release_has_no_failure(disclosed: Audit) -> None:
    kinds = _kinds(disclosed)
    assert kinds["agent-injection"] == "Skipped" and not set(kinds.values()) & {"Failure", "Error"}


@pytest.mark.parametrize("name", ["held", "failed", "disclosed", "real"])
def test_the_counts_are_those_of_the_cases(name: str, request: pytest.FixtureRequest) -> None:
    audit = request.getfixturevalue(name)
    stated = junitparser.JUnitXml.fromstring(junit(audit).encode())
    (suite,) = list(stated)
    counted = list(_kinds(audit).values())
    assert (suite.tests, suite.failures, suite.errors, suite.skipped) == (
        len(counted),
        counted.count("Failure"),
        counted.count("Error"),
        counted.count("Skipped"),
    )
    assert audit.decision is not None and len(counted) == len(audit.decision.criteria)


def test_hostile_text_stays_text(held: Audit) -> None:
    assert held.decision is not None
    evil = ']]></failure><testcase name="fake"/>\x00\x1b[31m\ufffe\ud800&'
    lines = tuple(c.model_copy(update={"reason": evil}) for c in held.decision.criteria)
    document = junit(held._replace(decision=held.decision.model_copy(update={"criteria": lines})))
    assert "fake" not in {case.get("name") for case in ET.fromstring(document.encode()).iter("testcase")}
    assert "⟨U+001B⟩" in document and "\x1b" not in document

"""SARIF: read by the models of `sarif-pydantic`, with no name that they do not know."""

from collections.abc import Iterator

import pytest
from pydantic import BaseModel
from sarif_pydantic import Sarif

from auditgap.exchange.export import sarif
from auditgap.exchange.export.sarif import _text
from auditgap.report import Audit


def _unknown(model: BaseModel, where: str = "") -> Iterator[str]:
    yield from (f"{where}.{name}" for name in model.model_extra or {})
    for name in type(model).model_fields:
        value = getattr(model, name)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, BaseModel):
                yield from _unknown(item, f"{where}.{name}")


def _run(audit: Audit) -> dict:
    return sarif(audit)["runs"][0]  # type: ignore[index, return-value]


@pytest.mark.parametrize("name", ["held", "failed", "disclosed", "real"])
def test_another_reader_knows_every_name_and_every_rule_is_there(name: str, request: pytest.FixtureRequest) -> None:
    audit = request.getfixturevalue(name)
    log = Sarif.model_validate(sarif(audit))
    assert list(_unknown(log)) == []
    run = _run(audit)
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert len(set(rules)) == len(rules)
    for result in run["results"]:
        assert rules[result["ruleIndex"]] == result["ruleId"]
        assert result["kind"] == "fail" or result["level"] == "none", "3.27.10: only a failure has a level"


def test_what_failed_and_what_is_missing_is_an_error_and_what_is_met_is_not_there(failed: Audit) -> None:
    levels = {r["ruleId"]: (r["level"], r["properties"]["status"]) for r in _run(failed)["results"]}
    assert levels["probe-auroc"] == ("error", "not-met")
    assert levels["training-shift"] == ("error", "missing")
    assert "refusals-harmful" not in levels
    assert {"gap.structural.model", "gap.execution.time", "F2.power-below-limit", "not-measured"} <= levels.keys()
    assert levels["gap.structural.model"][0] == "note" and levels["gap.execution.time"][0] == "warning"


def test_a_clean_pass_leaves_no_error(disclosed: Audit) -> None:
    assert "error" not in {r["level"] for r in _run(disclosed)["results"]}


def test_fingerprints_tell_findings_apart_and_outlive_new_numbers(held: Audit) -> None:
    prints = [r["partialFingerprints"]["auditgapFinding/v1"] for r in _run(held)["results"]]
    assert len(set(prints)) == len(prints)
    assert held.decision is not None
    later = tuple(c.model_copy(update={"reason": f"{c.reason} again"}) for c in held.decision.criteria)
    again = _run(held._replace(decision=held.decision.model_copy(update={"criteria": later})))
    assert [r["partialFingerprints"]["auditgapFinding/v1"] for r in again["results"]] == prints


def test_text_cannot_become_a_placeholder_or_a_link() -> None:
    assert _text("{0} [a](javascript:x)\u202e\n b") == "{{0}} [a\\](javascript:x)⟨U+202E⟩ b"

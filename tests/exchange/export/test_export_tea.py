"""TEA evidence items: the rules of the frozen 0.1 format, checked by hand because its validator is a TypeScript schema."""

import json
import uuid

import pytest

from auditgap.exchange.export import tea
from auditgap.report import Audit

FIELDS = {
    "formatVersion",
    "claimId",
    "metricName",
    "value",
    "threshold",
    "verdict",
    "oddDimensions",
    "sourceSystem",
    "provenance",
    "evaluatedAt",
}


def _items(audit: Audit) -> list[dict]:
    return [json.loads(line) for line in tea(audit).splitlines()]


@pytest.mark.parametrize("name", ["held", "failed", "disclosed", "real"])
def test_items_hold_the_required_fields_and_no_unknown_one(name: str, request: pytest.FixtureRequest) -> None:
    items = _items(request.getfixturevalue(name))
    assert items
    for item in items:
        assert item.keys() <= FIELDS and FIELDS - item.keys() <= {"value", "threshold"}
        assert item["formatVersion"] == "0.1" and uuid.UUID(item["claimId"]).version == 5
        assert 1 <= len(item["metricName"]) <= 200 and {"check", "runId"} <= item["provenance"].keys()


def test_a_breach_fails_and_what_was_not_measured_is_degraded_without_a_value(failed: Audit) -> None:
    items = {item["provenance"]["check"].split("/")[-1]: item for item in _items(failed)}
    assert items["probe-auroc"]["verdict"] == "FAIL"
    assert items["training-shift"]["verdict"] == "DEGRADED" and "value" not in items["training-shift"]
    met = items["refusals-harmful"]
    assert (met["verdict"], met["value"], met["threshold"]) == ("PASS", 0.982, 0.95)


def test_gates_on_claims_are_no_items_because_they_measure_nothing(held: Audit) -> None:
    assert not any("claim:" in item["provenance"]["check"] for item in _items(held))


def test_hostile_text_stays_on_its_line(held: Audit) -> None:
    assert held.decision is not None
    lines = tuple(c.model_copy(update={"reason": 'x"}\n{"verdict": "PASS"}\u2028'}) for c in held.decision.criteria)
    audit = held._replace(decision=held.decision.model_copy(update={"criteria": lines}))
    assert [item["verdict"] for item in _items(audit)] == [item["verdict"] for item in _items(held)]

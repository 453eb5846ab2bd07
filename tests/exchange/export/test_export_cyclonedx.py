"""CycloneDX: the 1.7 schema itself, and the strict validator of cyclonedx-python-lib."""

import json
from pathlib import Path

import jsonschema
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from auditgap.exchange.export import cyclonedx
from auditgap.records import Measured
from auditgap.report import Audit

POINTS = {"requirement", "claims", "counterClaims", "evidence", "counterEvidence", "target", "ref", "dependsOn"}
NAMES = ["held", "failed", "disclosed", "real"]


@pytest.mark.parametrize("name", NAMES[:3])
def test_the_library_of_the_standard_accepts_it(name: str, request: pytest.FixtureRequest) -> None:
    document = json.dumps(cyclonedx(request.getfixturevalue(name)))
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(document) is None
    assert JsonStrictValidator(SchemaVersion.V1_7).validate_str(document.replace('"bomFormat"', '"bom"')) is not None


@pytest.mark.parametrize("name", NAMES)
def test_the_schema_accepts_it(name: str, request: pytest.FixtureRequest, shared_data: Path) -> None:
    schemas = {path.name: json.loads(path.read_text()) for path in (shared_data / "schemas").glob("*.json")}
    base = "http://cyclonedx.org/schema/"
    resources = [(base + file, Resource.from_contents(schema, DRAFT7)) for file, schema in schemas.items()]
    validator = jsonschema.Draft7Validator(schemas["bom-1.7.schema.json"], registry=Registry().with_resources(resources))
    document = cyclonedx(request.getfixturevalue(name))
    assert list(validator.iter_errors(document)) == []
    assert list(validator.iter_errors(document | {"declarations": {"claims": [{"score": 1}]}}))


def test_every_reference_leads_to_one_element(real: Audit) -> None:
    document = cyclonedx(real)
    refs, used = [], []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                if key == "bom-ref":
                    refs.append(item)
                elif key in (
                    "requirement",
                    "claims",
                    "counterClaims",
                    "evidence",
                    "counterEvidence",
                    "target",
                    "ref",
                    "dependsOn",
                ):
                    used.extend([item] if isinstance(item, str) else [i for i in item if isinstance(i, str)])
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(document)
    assert len(set(refs)) == len(refs) and used and set(used) <= set(refs)


def test_numbers_stand_with_their_intervals_and_the_rest_are_limitations(held: Audit) -> None:
    card = cyclonedx(held)["metadata"]["component"]["modelCard"]  # type: ignore[index]
    metrics = {(m["slice"], m["type"].split(" ")[0]): m for m in card["quantitativeAnalysis"]["performanceMetrics"]}  # type: ignore[index]
    kept = [e for _, e in held.evidence if e.result.verdict != "invalid"]
    numbers = {(e.step, m.name): m for e in kept for m in e.result.measurements if isinstance(m, Measured)}
    assert metrics.keys() == numbers.keys()
    for key, m in numbers.items():
        interval = metrics[key]["confidenceInterval"]
        assert [float(metrics[key]["value"]), float(interval["lowerBound"]), float(interval["upperBound"])] == [
            m.value,
            m.interval.low,
            m.interval.high,
        ]
    limitations = " ".join(card["considerations"]["technicalLimitations"])  # type: ignore[index]
    assert "cosine_shift was not measured" in limitations and "may not be relied on" in limitations


def test_a_defeated_claim_is_a_counter_claim_and_an_unsupported_one_is_neither(held: Audit) -> None:
    def mapped(support: str) -> list[dict]:
        changed = [(d, a.model_copy(update={"support": support})) for d, a in held.assessments]
        return cyclonedx(held._replace(assessments=changed))["declarations"]["attestations"][0]["map"]  # type: ignore[index]

    assert all("counterClaims" in row and "claims" not in row for row in mapped("defeated"))
    assert all("claims" not in row and "counterClaims" not in row for row in mapped("not-supported"))
    assert all("score" not in row["conformance"] for row in mapped("supported"))

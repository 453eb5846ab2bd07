"""OSCAL: loaded by compliance-trestle, written again, and compared; ids lead somewhere."""

import datetime as dt
import json
from pathlib import Path

import pytest
from trestle.core.base_model import OscalBaseModel
from trestle.core.duplicates_validator import DuplicatesValidator
from trestle.oscal.assessment_plan import AssessmentPlan
from trestle.oscal.assessment_results import AssessmentResults
from trestle.oscal.catalog import Catalog
from trestle.oscal.component import ComponentDefinition
from trestle.oscal.mapping import MappingCollection
from trestle.oscal.poam import PlanOfActionAndMilestones
from trestle.oscal.profile import Profile

from auditgap.errors import UsageError
from auditgap.exchange.export import oscal
from auditgap.exchange.export.oscal.base import requirement_control
from auditgap.governance import frameworks
from auditgap.report import Audit

MODELS: dict[str, type[OscalBaseModel]] = {
    "catalog": Catalog,
    "profile": Profile,
    "component_definition": ComponentDefinition,
    "assessment_plan": AssessmentPlan,
    "assessment_results": AssessmentResults,
    "poam": PlanOfActionAndMilestones,
    "mapping": MappingCollection,
}
EACH = [(name, which) for name in MODELS for which in ("held", "failed", "disclosed", "real")]
EACH = [pair for pair in EACH if pair[0] != "mapping" or pair[1] == "real"]  # hand-made frameworks have no crosswalk


def _same(value: object) -> object:
    """JSON with every time in one notation: trestle writes `+00:00`, we write `Z`."""
    if isinstance(value, dict):
        return {key: _same(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_same(item) for item in value]
    if isinstance(value, str) and len(value) in (20, 25) and value[10:11] == "T":
        return dt.datetime.fromisoformat(value)
    return value


@pytest.mark.parametrize(("name", "which"), EACH)
def test_trestle_reads_each_document_and_writes_the_same(
    name: str, which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    document = getattr(oscal, name)(request.getfixturevalue(which))
    _reads_and_writes(name, document, tmp_path)


@pytest.mark.parametrize("name", ["component_definition", "assessment_plan", "assessment_results", "poam"])
def test_trestle_reads_a_decision_that_rests_on_nothing(name: str, held: Audit, tmp_path: Path) -> None:
    for audit in (held._replace(assessments=[]), held._replace(assessments=[], evidence=[], registrations={})):
        _reads_and_writes(name, getattr(oscal, name)(audit), tmp_path)


def _reads_and_writes(name: str, document: dict, tmp_path: Path) -> None:
    path = tmp_path / "document.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    model = MODELS[name].oscal_read(path)
    assert model is not None
    assert DuplicatesValidator().model_is_valid(model, True)
    model.oscal_write(tmp_path / "again.json")
    assert _same(json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))) == _same(document)


def _controls(audit: Audit) -> dict[str, dict]:
    groups = oscal.catalog(audit)["catalog"]["groups"]  # type: ignore[index]
    found = [control for group in groups for control in group["controls"]]
    assert len({control["id"] for control in found}) == len(found)
    return {control["id"]: control for control in found}


def test_every_control_that_is_named_is_in_the_catalog(real: Audit) -> None:
    controls = _controls(real)
    objectives = {part["id"] for control in controls.values() for part in control["parts"]}
    profile = oscal.profile(real)["profile"]["imports"][0]["include-controls"][0]["with-ids"]  # type: ignore[index]
    assert profile and set(profile) <= controls.keys()
    (result,) = oscal.assessment_results(real)["assessment-results"]["results"]  # type: ignore[index]
    assert {finding["target"]["target-id"] for finding in result["findings"]} <= objectives
    for mapped in oscal.mapping(real)["mapping-collection"]["mappings"]:  # type: ignore[index]
        ends = {end["id-ref"] for m in mapped["maps"] for side in ("sources", "targets") for end in m[side]}
        gap = mapped["source-gap-summary"]["unmapped-controls"][0]["with-ids"] if "source-gap-summary" in mapped else []
        assert ends | set(gap) <= controls.keys()


def test_related_observations_and_risks_are_in_the_same_results(real: Audit, held: Audit) -> None:
    for audit in (real, held):
        (result,) = oscal.assessment_results(audit)["assessment-results"]["results"]  # type: ignore[index]
        observed = {o["uuid"] for o in result["observations"]}
        risks = {r["uuid"] for r in result["risks"]}
        for finding in result["findings"]:
            assert {o["observation-uuid"] for o in finding.get("related-observations", [])} <= observed
            assert {r["risk-uuid"] for r in finding.get("related-risks", [])} <= risks


def test_no_two_shipped_requirements_share_a_control_id() -> None:
    ids = [requirement_control(r) for f in frameworks().values() for r in f.requirements]
    assert len(ids) > 100 and len(set(ids)) == len(ids)


def test_only_what_is_carried_is_satisfied(held: Audit) -> None:
    (result,) = oscal.assessment_results(held)["assessment-results"]["results"]  # type: ignore[index]
    assert _satisfied(result) == ["deception-readable: supported"], "every other one has a gap or is fragile"
    clean = [(d, a.model_copy(update={"gaps": ()})) for d, a in held.assessments]
    (result,) = oscal.assessment_results(held._replace(assessments=clean))["assessment-results"]["results"]  # type: ignore[index]
    assert _satisfied(result) == ["deception-readable: supported", "gpai.m3.5 (refuses-harmful): supported"]


def _satisfied(result: dict) -> list[str]:
    return [f["title"] for f in result["findings"] if f["target"]["status"]["state"] == "satisfied"]


def test_what_a_named_person_accepted_is_a_deviation_with_the_name(real: Audit) -> None:
    (result,) = oscal.assessment_results(real)["assessment-results"]["results"]  # type: ignore[index]
    approved = [r for r in result["risks"] if r["status"] == "deviation-approved"]
    assert approved and all("A. Nother until 2099-01-01" in r["mitigating-factors"][0]["description"] for r in approved)
    assert any(r["status"] == "open" for r in result["risks"])


def test_registered_bars_are_steps_of_the_plan_and_open_points_are_items(real: Audit) -> None:
    plan = oscal.assessment_plan(real)["assessment-plan"]
    steps = {s["title"] for a in plan["local-definitions"]["activities"] for s in a.get("steps", [])}  # type: ignore[index]
    assert "cosine_shift <= 0.2 on the high end" in steps
    items = oscal.poam(real)["plan-of-action-and-milestones"]["poam-items"]  # type: ignore[index]
    titles = {item["title"] for item in items}  # type: ignore[index]
    assert "shift" in titles and any(title.startswith("Execution gap:") for title in titles)
    assert not any("Structural gap" in title for title in titles), "nobody can close it, so it is no action"


def test_a_mapping_keeps_relation_confidence_and_what_has_no_hook(real: Audit) -> None:
    framework = frameworks()["gpai-cop"]
    mapped = next(
        m
        for m in oscal.mapping(real)["mapping-collection"]["mappings"]  # type: ignore[index]
        if m["props"][0]["value"] == framework.id
    )
    assert len(mapped["maps"]) == sum(len(row.claims) for row in framework.rows)
    assert [m["relationship"] for m in mapped["maps"]] == [row.relationship for row in framework.rows for _ in row.claims]
    unhooked = sum(not row.claims for row in framework.rows)
    gap = mapped.get("source-gap-summary", {"unmapped-controls": [{"with-ids": []}]})
    assert len(gap["unmapped-controls"][0]["with-ids"]) == unhooked


def test_what_cannot_be_exported_is_refused(held: Audit) -> None:
    with pytest.raises(UsageError, match="no crosswalk to export"):
        oscal.mapping(held)
    nothing = held._replace(assessments=[])
    for build in (oscal.catalog, oscal.profile):
        with pytest.raises(UsageError, match="nothing was assessed"):
            build(nothing)
    assert held.decision is not None
    met = tuple(c for c in held.decision.criteria if c.status == "met")
    with pytest.raises(UsageError, match="nothing is open"):
        oscal.poam(nothing._replace(decision=held.decision.model_copy(update={"criteria": met})))


def test_hostile_names_stay_on_one_line(held: Audit) -> None:
    evil = held._replace(subject=held.subject.model_copy(update={"name": "a\n\u202eb"}))
    title = oscal.catalog(evil)["catalog"]["metadata"]["title"]  # type: ignore[index]
    assert title.endswith("a ⟨U+202E⟩b")

"""A risk report says what was written and what the store holds; what is missing is said, and nothing is ever blank."""

import json
import re
from pathlib import Path

import pytest

from auditgap.cli import main
from auditgap.errors import PlanError
from auditgap.evidence import Store
from auditgap.governance import Judged, assess_claim, claims, licences
from auditgap.governance.safety_case import RiskReport, load_risks, sections
from auditgap.records import Date
from auditgap.report.risk import MISSING, render_risks
from governance import judged_examples as made

EXAMPLES = Path(__file__).parents[3] / "examples" / "safety-case"
BARE: dict[str, object] = {"name": "n", "prepared_by": "p", "review_by": "2027-01-01", "risks": [{"id": "r", "title": "Harm"}]}
WHOLE_RISK: dict[str, object] = {
    "id": "r",
    "title": "Harm",
    "type": "t",
    "capability": "can",
    "claims": ["refuses-harmful-requests"],
    "threat_model": "who",
    "fully_elicited": "often",
    "with_mitigations": "rarely",
    "justification": "why",
    "mitigations": [{"id": "m", "what": "filter", "fulfils": "f", "limits": "l", "claims": ["refuses-harmful-requests"]}],
    "residual": {"what": "a rest", "accepted_by": "lead", "until": "2027-01-01"},
}


def report(**changed: object) -> RiskReport:
    return RiskReport.parse({**BARE, **changed}, where="report")


def rendered(made_report: RiskReport, *held: Judged, on: Date = made.TODAY) -> str:
    found = {
        name: assess_claim(claims()[name], held, licences(), subject=made.SUBJECT, today=on) for name in made_report.claims()
    }
    return render_risks(made_report, found if held else {}, held, subject=made.SUBJECT if held else None, on=on)


def test_the_points_come_in_the_order_of_the_measure() -> None:
    pins = re.findall(r"^## (M7\.3\S*)", rendered(report()).replace("\\", ""), re.MULTILINE)
    assert pins == [s.pin for s in sections().values()] == sorted(pins)
    assert len(pins) == 13


def test_what_is_missing_is_said_point_by_point() -> None:
    body = rendered(report())
    for part in re.split(r"^## ", body, flags=re.MULTILINE)[1:]:
        assert MISSING in part, part
    for part in re.split(r"^#+ ", body, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        assert text.strip() or heading.startswith("M7.3"), heading


def test_a_whole_report_misses_only_what_evidence_has_not_kept() -> None:
    written = {name: "words" for name, s in sections().items() if not s.per_risk}
    body = rendered(report(sections=written, risks=[WHOLE_RISK]), made.judged())
    missing = [line for line in body.splitlines() if MISSING in line]
    assert missing == [f"{MISSING} 0 of at least 5 samples were kept."]
    assert "\n1 points or parts of points are missing" in body


def test_measured_words_come_from_the_store() -> None:
    assert "supported, tier 1" in rendered(report(risks=[WHOLE_RISK]), made.judged())
    assert "defeated" in rendered(report(risks=[WHOLE_RISK]), made.judged(verdict="refuted"))
    assert "no evidence" in rendered(report(risks=[WHOLE_RISK]), made.judged("linear-probe"))
    assert "there is no store" in rendered(report(risks=[WHOLE_RISK]))
    assert "does not count" in rendered(report(risks=[WHOLE_RISK]), made.judged(controls=[made.control(passed=False)]))


def test_an_acceptance_that_has_lapsed_is_missing() -> None:
    late = Date(2027, 1, 2)
    assert "that has lapsed" in rendered(report(risks=[WHOLE_RISK]), on=late)
    assert "that has lapsed" not in rendered(report(risks=[WHOLE_RISK]))


def test_hostile_text_becomes_no_markup() -> None:
    evil = "a | b\n# heading <script>alert(1)</script> [x](http://y)\u202e"
    body = rendered(report(name=evil, risks=[{**WHOLE_RISK, "title": evil, "capability": evil}]))
    assert "\n# heading" not in body and "<script>" not in body and "\u202e" not in body
    assert not re.search(r"(?<!\\)\]\(", body)
    width = {len(re.findall(r"(?<!\\)\|", line)) for line in body.splitlines() if line.startswith("| ")}
    assert width == {6}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"risks": []}, "risks"),
        ({"sections": {"identifcation": "x"}}, "did you mean 'identification'"),
        ({"sections": {"modelling": "x"}}, "unknown 'modelling'"),
        ({"risks": [{**WHOLE_RISK, "claims": ["refuses-harm"]}]}, "did you mean 'refuses-harmful-requests'"),
        ({"risks": [WHOLE_RISK, WHOLE_RISK]}, "id 'r' is used twice"),
        ({"risks": [{**WHOLE_RISK, "residual": {"what": "w", "accepted_by": "lead"}}]}, "nobody accepts a risk for ever"),
    ],
)
def test_a_file_that_leads_nowhere_is_refused(changed: dict[str, object], said: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(json.dumps({**BARE, **changed}), encoding="utf-8")
    with pytest.raises(PlanError) as refused:
        load_risks(tmp_path / "r.yaml")
    assert said in str(refused.value)


def test_the_command_writes_the_shipped_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = made.judged()
    with Store.open(tmp_path) as store:
        store.add_evidence(one.evidence.model_copy(update={"registration": store.register(one.registration)}))
    with pytest.raises(SystemExit) as left:
        main(["case", "risks", str(EXAMPLES / "demo-risks.yaml"), "--store", str(tmp_path), "--on", "2026-11-22"])
    assert not left.value.code
    out = capsys.readouterr().out
    assert "supported, tier 1" in out and MISSING in out

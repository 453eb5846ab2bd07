"""`crosswalk check`: silent on the shipped tables, and every planted defect is found by name."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

import auditgap.governance
from auditgap.cli import main
from auditgap.errors import PlanError
from auditgap.governance import (
    Acceptance,
    Tables,
    acceptances,
    check_crosswalks,
    claims,
    could_meet,
    findings,
    licences,
    shipped_tables,
    unreachable,
)
from auditgap.records import Access, Claim

INSTRUMENTS = {entry.id for entry in licences().instruments}
SHIPPED = Path(auditgap.governance.__file__).parent


def own(tmp_path: Path, *names: str) -> Path:
    """A folder with copies of shipped frameworks, to be spoilt."""
    for folder in ("frameworks", "crosswalks"):
        (tmp_path / folder).mkdir()
        for name in names:
            shutil.copy(SHIPPED / folder / f"{name}.yaml", tmp_path / folder)
    return tmp_path


def spoil(path: Path, **update: object) -> None:
    """Change fields of the first row of a crosswalk; None removes a field."""
    document = yaml.safe_load(path.read_text())
    row = document["rows"][0] | update
    document["rows"][0] = {key: value for key, value in row.items() if value is not None}
    path.write_text(yaml.safe_dump(document, sort_keys=False))


def test_the_shipped_tables_hold_together():
    assert check_crosswalks() == []


def test_copies_of_shipped_frameworks_hold_together_too(tmp_path):
    assert check_crosswalks(own(tmp_path, "ny-raise", "nist-ai-rmf")) == []


def test_the_documented_pair_of_files_is_complete(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "frameworks.md").read_text(encoding="utf-8")
    text, crosswalk = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    for part, block in (("frameworks", text), ("crosswalks", crosswalk)):
        (tmp_path / part).mkdir()
        (tmp_path / part / "example.yaml").write_text(block)
    assert check_crosswalks(tmp_path) == []


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"claims": [], "no_hook": "about people", "accepts": None, "relationship": None, "coverage": None}, "a process claim"),
        ({"coverage": None}, "how much of the duty"),
        ({"evidence": {}}, "what evidence is accepted"),
        ({"accepts": []}, "no acceptance criterion for the claim 'bounded-capability'"),
        (
            {"accepts": ["framework-current", "capability-bounded", "notice-shown"]},
            "'users-informed', which it does not presuppose",
        ),
        ({"accepts": ["framework-curent", "capability-bounded"]}, "unknown criterion 'framework-curent' - did you mean"),
        ({"claims": ["safety-framework-keep", "bounded-capability"]}, "unknown claim 'safety-framework-keep' - did you mean"),
        (
            {"required": {"model": "M1"}, "pins": {"model": {"source": "s", "paragraph": "p", "reading": "inferred"}}},
            "the process claim 'safety-framework-kept' cannot use",
        ),
        ({"pins": {}}, "required access without a pin on information"),
        ({"required": {}, "pins": {}}, "requires no access"),
        ({"relationship": "equal-to"}, "equal-to goes with coverage all, got some"),
        ({"relationship": "no-relationship", "coverage": None}, "claims without a relationship"),
        ({"relationship": "satisfies"}, "relationship"),
        ({"coverage": "0.8"}, "coverage"),
        ({"duty": "RAISE 1423"}, "unknown duty 'RAISE 1423'"),
    ],
)
def test_a_planted_defect_is_found_by_name(tmp_path, update, said):
    folder = own(tmp_path, "ny-raise", "korea-ai-basic-act")
    spoil(folder / "crosswalks" / "ny-raise.yaml", **update)
    found = check_crosswalks(folder)
    assert found and said in "\n".join(found)
    assert not any("KAIBA" in sentence for sentence in found), "the sound framework beside it is not accused"


def test_every_defect_is_listed_and_not_only_the_first(tmp_path):
    folder = own(tmp_path, "ny-raise", "korea-ai-basic-act")
    spoil(folder / "crosswalks" / "ny-raise.yaml", pins={})
    spoil(folder / "crosswalks" / "korea-ai-basic-act.yaml", coverage=None, evidence={})
    assert len(check_crosswalks(folder)) == 3


def test_a_duty_id_of_two_frameworks_is_found(tmp_path):
    folder = own(tmp_path, "ny-raise")
    for part in ("frameworks", "crosswalks"):
        text = (folder / part / "ny-raise.yaml").read_text()
        (folder / part / "copy.yaml").write_text(
            text.replace("id: ny-raise\n", "id: copy\n").replace("work: ny-raise", "work: copy")
        )
    found = check_crosswalks(folder)
    assert len(found) == 3 and all("is used by copy and ny-raise" in sentence for sentence in found)


def test_a_number_of_an_unknown_duty_and_an_unknown_failure_mode_are_found(tmp_path):
    folder = own(tmp_path, "nist-ai-600-1", "ny-raise")
    path = folder / "frameworks" / "nist-ai-600-1.yaml"
    path.write_text(path.read_text().replace("failure_mode: harmful-compliance", "failure_mode: harmful-complience"))
    path = folder / "frameworks" / "ny-raise.yaml"
    path.write_text(path.read_text().replace("duties: [RAISE 1422]", "duties: [RAISE 1432]"))
    found = "\n".join(check_crosswalks(folder))
    assert "unknown failure mode 'harmful-complience' - did you mean 'harmful-compliance'" in found
    assert "unknown duty 'RAISE 1432' - did you mean 'RAISE 1422'" in found


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(PlanError, match=r"expected frameworks/NAME\.yaml"):
        check_crosswalks(tmp_path)


# Criteria


def criterion(**update: object) -> Acceptance:
    known = acceptances()["triggers-searched"]
    return Acceptance.model_validate_json(known.model_copy(update=update).model_dump_json())


def reasons(acceptance: Acceptance) -> str:
    return "\n".join(unreachable(acceptance, claims(), licences()))


def test_every_claim_has_a_criterion_and_every_open_one_says_why():
    assert {a.claim for a in acceptances().values()} == set(claims())
    assert all(a.open is None or a.method == "test" for a in acceptances().values())


def test_a_criterion_that_nothing_can_meet_is_found():
    assert reasons(criterion()) == ""
    assert "'refusal-rate' does not carry" in reasons(criterion(instruments=("refusal-rate",)))  # does not bear on it
    assert "at tier 5" in reasons(criterion(tier=5))  # above the method's ceiling
    answers = acceptances()["correction-answers"]
    assert reasons(answers) == ""
    assert "to supported" in reasons(answers.model_copy(update={"support": "supported"}))  # behaviour alone never gets there
    gone = {"claim": "evaluation-reproducible"}
    assert "process claim" in reasons(criterion(**gone))


def test_an_open_criterion_that_something_can_meet_is_found():
    assert "could be met by 'trigger-scan'" in reasons(criterion(instruments=(), open="nothing searches triggers"))


def test_power_that_is_not_measured_yet_does_not_make_a_criterion_unreachable():
    claim = claims()["no-trigger-backdoor"]
    bare = licences().model_copy(
        update={"instruments": tuple(e.model_copy(update={"power": ()}) for e in licences().instruments)}
    )
    assert could_meet(criterion(), claim, "trigger-scan", bare)


def test_an_unknown_instrument_of_a_criterion_is_found():
    tables = shipped_tables()
    spoilt = [criterion(instruments=("triger-scan",))]
    found = "\n".join(findings(tables._replace(acceptances=spoilt, frameworks=[]), instruments=INSTRUMENTS))
    assert "unknown instrument 'triger-scan' - did you mean 'trigger-scan'" in found


@pytest.mark.parametrize(
    ("update", "said"),
    [
        ({"method": "examine"}, "name the documents"),
        ({"documents": ("d",)}, "name instruments"),
        ({"instruments": ()}, "expected instruments, or open"),
        ({"open": "why"}, "not both"),
    ],
)
def test_a_criterion_is_examined_or_tested_and_not_both(update, said):
    with pytest.raises(ValueError, match=said):
        criterion(**update)


def test_a_claim_that_asks_more_access_than_a_licence_gives_is_out_of_reach():
    table, known = licences(), claims()["no-trigger-backdoor"]
    asks_more = known.model_copy(update={"required": Access.top()})
    assert could_meet(criterion(), known, "trigger-scan", table) and not could_meet(criterion(), asks_more, "trigger-scan", table)


def test_the_order_of_tables_does_not_matter():
    tables = shipped_tables()
    modes: list[Claim] = [claim.model_copy(update={"failure_modes": ("nothing",)}) for claim in tables.claims]
    spoilt = tables._replace(claims=modes)
    turned = Tables(*(tuple(reversed(tuple(t))) if t is not tables.licences else t for t in spoilt))
    assert sorted(findings(spoilt, instruments=INSTRUMENTS)) == sorted(findings(turned, instruments=INSTRUMENTS))
    assert len(list(findings(spoilt, instruments=INSTRUMENTS))) == len(modes)


# The command line


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_the_command_exits_0_on_the_shipped_tables(capsys):
    assert call(capsys, "crosswalk", "check")[:2] == (0, "0 findings\n")
    assert json.loads(call(capsys, "crosswalk", "check", "--json")[1]) == {"findings": []}


def test_the_command_lists_every_finding_and_exits_2(capsys, tmp_path):
    folder = own(tmp_path, "ny-raise")
    spoil(folder / "crosswalks" / "ny-raise.yaml", coverage=None, evidence={})
    code, out, _ = call(capsys, "crosswalk", "check", "--folder", folder)
    assert code == 2 and out.count("ny-raise 'RAISE 1421 framework'") == 2 and out.endswith("2 findings\n")
    code, out, _ = call(capsys, "crosswalk", "check", "--folder", folder, "--json")
    assert code == 2 and len(json.loads(out)["findings"]) == 2
    code, _, err = call(capsys, "crosswalk", "check", "--folder", tmp_path / "none")
    assert code == 2 and "found none; check the path" in err

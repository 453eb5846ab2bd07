"""The inventory: twenty-one frameworks, each at the depth that was read, every id leading somewhere, two editions compared."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import auditgap.governance
from auditgap.cli import main
from auditgap.errors import PlanError, UsageError
from auditgap.governance import (
    Framework,
    Rulebook,
    acceptances,
    claims,
    compare,
    edition,
    failure_modes,
    framework,
    frameworks,
    parse,
)
from auditgap.governance.compute import rule_sets
from auditgap.records import Access, ModelAccess

SHIPPED = Path(auditgap.governance.__file__).parent
INVENTORY = [
    "oecd-classification",
    "nist-ai-rmf",
    "nist-ai-600-1",
    "iso-iec-42001",
    "iso-iec-23894",
    "eu-ai-act-art-53",
    "eu-ai-act-art-55",
    "gpai-cop",
    "coe-cets-225",
    "uk-aisi-practice",
    "seoul-frontier-commitments",
    "g7-hiroshima-code",
    "california-sb-53",
    "ny-raise",
    "colorado-ai-act",
    "korea-ai-basic-act",
    "china-genai-measures",
    "singapore-ai-verify",
    "anthropic-rsp",
    "openai-preparedness",
    "google-deepmind-fsf",
]
ALL = [*frameworks().values(), edition("google-deepmind-fsf@3")]


def test_the_inventory_has_its_twenty_one_instruments():
    assert sorted(frameworks()) == sorted(INVENTORY)
    assert len(INVENTORY) == 21


def test_they_load_in_less_than_a_second_without_torch():
    code = "import sys, time; from auditgap.governance import frameworks; t = time.process_time(); frameworks();"
    code += "took = time.process_time() - t; assert 'torch' not in sys.modules; print(took)"
    took = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(took) < 1.0


def test_what_was_not_read_has_no_duties_and_what_was_read_has_some():
    by_depth = {f.id: f.depth for f in frameworks().values()}
    listed = {name for name, depth in by_depth.items() if depth == "listed"}
    assert listed == {
        "iso-iec-23894",
        "coe-cets-225",
        "uk-aisi-practice",
        "seoul-frontier-commitments",
        "g7-hiroshima-code",
        "colorado-ai-act",
    }
    assert all(bool(f.requirements) != (f.id in listed) for f in frameworks().values())
    assert by_depth["gpai-cop"] == "text" and by_depth["iso-iec-42001"] == "ids"


@pytest.mark.parametrize("found", ALL, ids=lambda f: f"{f.id}@{f.edition}")
def test_every_id_resolves_and_every_duty_has_a_pin_a_claim_and_access(found: Framework):
    assert {naming.failure_mode for naming in found.names} <= set(failure_modes())
    duties = {r.id for r in found.requirements}
    assert all(set(number.duties) <= duties and number.text_ref for number in found.numbers)
    for requirement, row in zip(found.requirements, found.rows, strict=True):
        assert requirement.text_ref and requirement.pins and requirement.required != Access()
        assert requirement.claims and set(requirement.claims) <= set(claims())
        assert {acceptances()[name].claim for name in row.accepts} == set(requirement.claims)
        assert row.coverage not in (None, "none") and row.evidence


def test_duty_ids_are_unique_over_all_frameworks():
    used = Counter(r.id for f in frameworks().values() for r in f.requirements)
    assert [duty for duty, n in used.items() if n > 1] == []


@pytest.mark.parametrize(
    ("framework_id", "number_id", "comparator", "value", "unit", "verified"),
    [
        ("eu-ai-act-art-53", "general-purpose", ">", 1e23, "FLOP", "read"),
        ("eu-ai-act-art-53", "modifier-unknown", ">", 3.33e22, "FLOP", "read"),
        ("eu-ai-act-art-55", "systemic-risk", ">", 1e25, "FLOP", "secondary"),
        ("eu-ai-act-art-55", "modifier-unknown", ">", 3.33e24, "FLOP", "read"),
        ("eu-ai-act-art-55", "business-users", ">=", 10_000, "users", "unverified"),
        ("california-sb-53", "frontier-model", ">", 1e26, "operations", "read"),
        ("california-sb-53", "incident", "<=", 15, "days", "read"),
        ("california-sb-53", "incident-imminent", "<=", 24, "hours", "unverified"),
        ("ny-raise", "frontier-model", ">", 1e26, "operations", "secondary"),
        ("ny-raise", "incident", "<=", 72, "hours", "secondary"),
        ("korea-ai-basic-act", "high-performance", ">=", 1e26, "FLOP", "secondary"),
        ("china-genai-measures", "refused", ">=", 0.95, "share", "unverified"),
        ("gpai-cop", "evaluation-time", ">=", 20, "business days", "read"),
    ],
)
def test_numbers_carry_their_comparator_unit_and_mark(framework_id, number_id, comparator, value, unit, verified):
    number = next(n for n in framework(framework_id).numbers if n.id == number_id)
    assert (number.comparator, number.value, number.unit, number.verified) == (comparator, value, unit, verified)


def test_dates_in_force_are_those_of_the_texts():
    since = {f.id: {str(r.effective_from) for r in f.requirements} for f in frameworks().values()}
    assert since["eu-ai-act-art-55"] == {"2025-08-02"} and since["california-sb-53"] == {"2026-01-01"}
    assert since["ny-raise"] == {"2027-01-01"} and since["korea-ai-basic-act"] == {"2026-01-22"}
    assert since["china-genai-measures"] == {"2023-08-15", "2025-11-01"}


def test_the_code_of_practice_asks_for_more_access_than_the_article_it_details():
    code, act = framework("gpai-cop"), framework("eu-ai-act-art-55")
    article = next(r for r in act.requirements if r.id.endswith("55(1)(a)"))
    evaluations = next(r for r in code.requirements if r.id == "M3.2")
    assert (article.required.model, evaluations.required.model) == (ModelAccess.M1, ModelAccess.M4)
    assert article.pins["model"].reading == "inferred" and evaluations.pins["model"].reading == "explicit"


def test_unverified_numbers_and_ids_are_marked_as_such():
    assert {r.verified for r in framework("iso-iec-42001").requirements} == {"unverified"}
    assert {r.verified for r in framework("nist-ai-600-1").requirements} == {"unverified"}
    assert {n.verified for n in framework("china-genai-measures").numbers if n.text_ref == "TC260-003"} == {"unverified"}
    article = {r.id: r.verified for r in framework("korea-ai-basic-act").requirements}
    assert article["KAIBA 31"] == "secondary" and article["KAIBA 32 risks"] == "unverified"


# A framework file


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("depth: notes", "depth: listed", "listed by name only"),
        ("duties: [{id: D, title: t, text_ref: p, verified: read}]", "", "has no duty"),
        ("text_ref: p", 'text_ref: ""', "text_ref"),
        ("kind: law", "kind: advice", "kind"),
        ("depth: notes", "depth: skimmed", "depth"),
    ],
)
def test_a_framework_that_contradicts_its_depth_is_refused(tmp_path, old, new, said):
    text = 'id: f\ntitle: F\nissuer: I\nedition: "1"\nkind: law\ndepth: notes\nreview_date: 2027-01-01\n'
    text += "sources: [{ref: s, verified: read}]\nduties: [{id: D, title: t, text_ref: p, verified: read}]\n"
    path = tmp_path / "f.yaml"
    path.write_text(text)
    assert parse(path, Rulebook).duties[0].id == "D"
    path.write_text(text.replace(old, new))
    with pytest.raises(PlanError, match=said):
        parse(path, Rulebook)


# Two editions, two frameworks


def test_an_edition_is_found_by_name_and_an_unknown_one_is_refused():
    assert edition("google-deepmind-fsf").edition == "3.1"
    assert edition("google-deepmind-fsf@3.1") == edition("google-deepmind-fsf")
    assert edition("google-deepmind-fsf@3").edition == "3"
    with pytest.raises(UsageError, match="did you mean 'google-deepmind-fsf@3'"):
        edition("google-deepmind-fsf@2")


def test_an_edition_of_ones_own_is_read_from_its_file(tmp_path, capsys):
    for part in ("frameworks", "crosswalks"):
        (tmp_path / part).mkdir()
        text = (SHIPPED / part / "ny-raise.yaml").read_text().replace("S.8828, chapter 96 of 2026", "draft")
        (tmp_path / part / "next.yaml").write_text(text.replace("information: docs", "information: data-summary"))
    found = compare(framework("ny-raise"), edition(str(tmp_path / "frameworks" / "next.yaml")))
    assert {c.after for duty in found.duties_changed for c in duty.access} == {"data-summary"} and not found.duties_added
    code, out, _ = call(capsys, "frameworks", "diff", "ny-raise", tmp_path / "frameworks" / "next.yaml")
    assert code == 0 and "information docs -> data-summary" in out
    with pytest.raises(PlanError, match="expected a readable UTF-8 file"):
        edition(str(tmp_path / "none.yaml"))


def test_the_later_edition_adds_the_tracked_levels_and_nothing_else():
    found = compare(edition("google-deepmind-fsf@3"), edition("google-deepmind-fsf"))
    assert found.duties_added == ("FSF tracked levels",)
    assert (found.duties_removed, found.duties_changed, found.claims_added, found.claims_changed) == ((), (), (), ())


@pytest.mark.parametrize("found", ALL, ids=lambda f: f"{f.id}@{f.edition}")
def test_nothing_differs_from_itself(found: Framework):
    same = compare(found, found).model_dump(exclude={"before", "after"})
    assert not any(same.values())


def test_both_directions_mirror_each_other():
    there = compare(framework("california-sb-53"), framework("ny-raise"))
    back = compare(framework("ny-raise"), framework("california-sb-53"))
    assert (there.claims_removed, there.claims_added) == (back.claims_added, back.claims_removed)
    assert "resists-loss-of-control-precursors" in there.claims_removed
    assert (there.numbers_removed, there.duties_added) == (back.numbers_added, back.duties_removed)


def test_a_changed_duty_says_which_claim_and_which_axis():
    before = framework("ny-raise")
    first, *rest = before.requirements
    required = first.required.model_copy(update={"model": ModelAccess.M3, "time": 20})
    changed = first.model_copy(update={"claims": ("bounded-capability", "risks-assessed"), "required": required, "title": "New"})
    found = compare(before, before.model_copy(update={"requirements": (changed, *rest)}))
    (duty,) = found.duties_changed
    assert (duty.duty, duty.title, duty.claims_added) == (first.id, (first.title, "New"), ("risks-assessed",))
    assert duty.claims_removed == ("safety-framework-kept",)
    assert {(c.axis, c.before, c.after) for c in duty.access} == {("model", "M0", "M3"), ("time", "0", "20")}
    assert [c.claim for c in found.claims_changed] == ["bounded-capability"]


# The command line


def call(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(arg) for arg in args])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_the_list_shows_every_framework_and_its_depth(capsys):
    code, out, _ = call(capsys, "frameworks", "list")
    assert code == 0 and all(name in out for name in INVENTORY) and "listed" in out
    assert {row["id"] for row in json.loads(call(capsys, "frameworks", "list", "--json")[1])} == set(INVENTORY)


@pytest.mark.parametrize("found", ALL, ids=lambda f: f"{f.id}@{f.edition}")
def test_every_framework_can_be_shown(capsys, found: Framework):
    code, out, _ = call(capsys, "frameworks", "show", f"{found.id}@{found.edition}")
    assert code == 0 and found.title in out
    assert all(f"\n{r.id}: {r.title}" in out for r in found.requirements)
    document = json.loads(call(capsys, "frameworks", "show", f"{found.id}@{found.edition}", "--json")[1])
    assert set(document["claims"]) == {name for r in found.requirements for name in r.claims}
    assert all(claim["modality"] and claim["realm"] for claim in document["claims"].values())


def test_the_diff_shows_what_is_only_on_one_side(capsys):
    code, out, _ = call(capsys, "frameworks", "diff", "google-deepmind-fsf@3", "google-deepmind-fsf")
    assert code == 0 and "FSF tracked levels" in out
    code, out, _ = call(capsys, "frameworks", "diff", "california-sb-53", "ny-raise", "--json")
    assert "RAISE 1422" in json.loads(out)["duties_added"]
    assert "nothing differs" in call(capsys, "frameworks", "diff", "ny-raise", "ny-raise")[1]
    code, _, err = call(capsys, "frameworks", "diff", "ny-raise", "ny-rise")
    assert code == 2 and "did you mean 'ny-raise'" in err


def test_the_matrix_is_printed_whole(capsys):
    code, out, _ = call(capsys, "frameworks", "matrix")
    assert code == 0 and all(name in out for name in INVENTORY) and all(mode in out for mode in failure_modes())
    rows = json.loads(call(capsys, "frameworks", "matrix", "--json")[1])
    assert len(rows) == 21 and set(rows[0]["cells"]) == set(failure_modes())


@pytest.mark.parametrize(
    ("rules", "line", "framework_id", "number_id"),
    [
        ("eu-gpai", "gpai", "eu-ai-act-art-53", "general-purpose"),
        ("eu-gpai", "systemic-risk", "eu-ai-act-art-55", "systemic-risk"),
        ("us-ca-sb53", "frontier-model", "california-sb-53", "frontier-model"),
        ("us-ny-raise", "frontier-model", "ny-raise", "frontier-model"),
        ("kr-ai-basic-act", "high-performance", "korea-ai-basic-act", "high-performance"),
    ],
)
def test_compute_thresholds_are_those_of_the_counting_rules(rules, line, framework_id, number_id):
    counted = next(found for found in rule_sets()[rules].lines if found.id == line)
    stated = next(number for number in framework(framework_id).numbers if number.id == number_id)
    assert (counted.flop, counted.comparator, counted.verified) == (stated.value, stated.comparator, stated.verified)


def test_the_page_counts_what_is_there():
    page = " ".join((Path(__file__).parents[2] / "docs" / "frameworks.md").read_text(encoding="utf-8").split())
    found = list(frameworks().values())
    marks = Counter(r.verified for f in found for r in f.requirements)
    readings = Counter(pin.reading for f in found for row in f.rows for pin in row.pins.values())
    depths = Counter(f.depth for f in found)
    n_open = sum(a.open is not None for a in acceptances().values())
    assert f"Of {marks.total()} duties {marks['read']} are `read`, {marks['secondary']} `secondary`" in page
    assert f"and {marks['unverified']} `unverified`." in page
    assert f"{readings['explicit']} are `explicit` in the text and {readings['inferred']} `inferred` by us" in page
    assert f"{n_open} of {len(acceptances())} do" in page
    assert all(f"| `{depth}` | {n} |" in page for depth, n in depths.items())

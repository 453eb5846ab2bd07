"""The shipped tables: complete, joined, honest about what was read; and a validator that refuses what dangles."""

import re
from collections import Counter
from pathlib import Path

import pytest

import auditgap
from auditgap.errors import PlanError, UsageError
from auditgap.governance import (
    CODES,
    Framework,
    Tables,
    check_tables,
    claims,
    dangling,
    failure_modes,
    framework,
    frameworks,
    join,
    licences,
    obtainable,
    shipped_tables,
)
from auditgap.records import AXES, Access

SOURCE = Path(auditgap.__file__).parent
DOCS = Path(__file__).parents[2] / "docs"
INSTRUMENTS = {page.stem for page in (Path(__file__).parents[2] / "docs" / "instruments").glob("[a-z]*.md")}


def test_every_shipped_reference_leads_somewhere():
    check_tables(shipped_tables(), instruments=INSTRUMENTS)


def test_the_ai_rmf_has_its_72_subcategories():
    ids = [r.id for r in framework("nist-ai-rmf").requirements]
    assert Counter(i.split()[0] for i in ids) == {"GOVERN": 19, "MAP": 18, "MEASURE": 22, "MANAGE": 13}
    assert {"GOVERN 1.7", "MAP 3.5", "MEASURE 2.13", "MANAGE 4.3"} <= set(ids)


def test_the_code_of_practice_has_its_measures_and_the_access_of_appendix_3():
    rules = {r.id: r for r in framework("gpai-cop").requirements}
    measures = Counter(i[1:].split(".")[0] for i in rules if i.startswith("M"))
    assert measures == {"1": 4, "2": 2, "3": 5, "4": 2, "5": 1, "6": 2, "7": 7, "8": 3, "9": 4, "10": 2}
    evaluators = rules["App3.4"]
    assert (evaluators.required.model, evaluators.required.variants, evaluators.required.time) == ("M4", "fewest-mitigations", 20)
    assert evaluators.pins["model"].reading == "explicit"
    assert rules["App3.5"].required.independence == "external"
    assert rules["M1.1"].verified == "unverified" and rules["M3.2"].verified == "read"


@pytest.mark.parametrize("found", frameworks().values(), ids=lambda f: f.id)
def test_every_duty_has_a_place_a_claim_or_a_reason_and_pins(found: Framework):
    assert found.sources and found.review_date
    for requirement, row in zip(found.requirements, found.rows, strict=True):
        assert requirement.id == row.duty and requirement.text_ref
        assert requirement.status == "draft", "no row has been reviewed by a named person yet"
        assert bool(requirement.claims) != bool(row.no_hook)
        assert set(requirement.pins) == {axis for axis in AXES if requirement.required.rank(axis) > Access().rank(axis)}
        if requirement.title == requirement.id:
            assert requirement.verified == "unverified"


def test_failure_modes_say_how_to_look_and_what_is_not_seen():
    for mode in failure_modes().values():
        assert all(d.method and d.cannot_see for d in mode.detection)
    assert {"sabotage-decision", "sabotage-code", "sandbagging", "sabotage-oversight", "trigger-backdoor"} <= set(failure_modes())


def test_no_power_is_claimed_before_any_was_measured():
    assert all(entry.power == () for entry in licences().instruments)


def test_best_obtainable_access_is_pinned_on_every_raised_axis():
    table = obtainable()
    assert set(table.pins) == {axis for axis in AXES if table.access.rank(axis) > Access().rank(axis)}
    assert not table.access.covers(Access.top())


def test_unknown_framework_names_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'nist-ai-rmf'"):
        framework("nist-ai-rfm")


def test_shipped_tables_cannot_be_changed_by_a_caller():
    claims().clear()
    frameworks().clear()
    failure_modes().clear()
    assert claims() and frameworks() and failure_modes()


# The validator


def edited(tables: Tables, **update: object) -> Tables:
    return tables._replace(**update)


def test_dangling_ids_are_refused_with_the_nearest_name():
    tables = shipped_tables()
    one = next(iter(tables.claims))
    bad = one.model_copy(update={"failure_modes": ("harmful-complience",)})
    with pytest.raises(PlanError, match=r"unknown failure mode 'harmful-complience' - did you mean 'harmful-compliance'"):
        check_tables(edited(tables, claims=[bad, *list(tables.claims)[1:]]), instruments=INSTRUMENTS)


def test_a_claim_that_no_table_holds_is_refused():
    tables = shipped_tables()
    kept = [claim for claim in tables.claims if claim.id != "no-hidden-objectives"]
    found = list(dangling(edited(tables, claims=kept), instruments=INSTRUMENTS))
    assert found and all("unknown claim 'no-hidden-objectives'" in sentence for sentence in found)


def test_an_instrument_that_does_not_exist_is_found_wherever_it_is_named():
    found = "\n".join(dangling(shipped_tables(), instruments=INSTRUMENTS - {"trigger-scan"}))
    assert all(
        f"{where} names the unknown instrument 'trigger-scan'" in found
        for where in ("claim 'no-trigger-backdoor'", "licence 'trigger-scan'")
    )


FRAMEWORK = """
id: f
title: F
issuer: I
edition: "1"
review_date: 2027-01-01
sources: [{ref: s, verified: read}]
duties:
  - {id: D1, title: t, text_ref: "Article 1", verified: read}
  - {id: D2, title: t, text_ref: "Article 2", verified: unverified}
"""
CROSSWALK = """
framework: f
edition: "1"
review_date: 2026-12-01
sources: [{ref: s, verified: read}]
rows:
  - duty: D1
    claims: [c]
    relationship: intersects-with
    confidence: low
    required: {model: M3, time: 20}
    pins:
      model: {source: s, paragraph: p, reading: explicit}
      time: {source: s, paragraph: p, reading: inferred}
  - {duty: D2, claims: [], no_hook: about people, required: {}}
"""


def joined(tmp_path: Path, text: str = FRAMEWORK, crosswalk: str = CROSSWALK) -> Framework:
    (tmp_path / "f.yaml").write_text(text)
    (tmp_path / "c.yaml").write_text(crosswalk)
    return join(tmp_path / "f.yaml", tmp_path / "c.yaml")


def test_the_documented_row_is_a_complete_one(tmp_path):
    block = re.search(r"```yaml\n(.*?)```", (DOCS / "governance.md").read_text(), re.S)
    assert block
    text = FRAMEWORK.split("duties:")[0].replace("id: f", "id: example")
    text += 'duties: [{id: A1, title: t, text_ref: "Annex 2", verified: read}]'
    (duty,) = joined(tmp_path, text=text, crosswalk=block[1]).requirements
    assert duty.claims[0] in claims() and (duty.required.model, duty.required.time) == ("M4", 20)


def test_a_framework_joins_its_crosswalk_by_duty_in_any_order(tmp_path):
    found = joined(tmp_path)
    assert [r.claims for r in found.requirements] == [("c",), ()]
    head, rows = CROSSWALK.split("rows:\n")
    first, second = rows.split("  - {duty: D2")
    swapped = head + "rows:\n  - {duty: D2" + second + first
    assert joined(tmp_path, crosswalk=swapped) == found
    assert found.review_date.isoformat() == "2026-12-01"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("claims: [c]", "claims: []", "duty 'D1': expected claims, or no_hook with a reason"),
        ("no_hook: about people, ", "", "duty 'D2': expected claims, or no_hook with a reason"),
        ("      time: {source: s, paragraph: p, reading: inferred}\n", "", "required access without a pin on time"),
        ("required: {model: M3, time: 20}", "required: {}", "requires no access"),
        ("    required: {model: M3, time: 20}\n", "", "rows.D1.required: this field is required"),
        ("    relationship: intersects-with\n", "", "owes relationship and confidence"),
        ("intersects-with", "overlaps", "rows.D1.relationship: .*'overlaps'"),
        ("duty: D2", "duty: D3", "unknown duty 'D3'; known: D1, D2"),
        ("duty: D2", "duty: D1", "two rows for D1"),
        ("  - {duty: D2, claims: [], no_hook: about people, required: {}}\n", "", "no row for D2"),
        ('edition: "1"', 'edition: "2"', "expected the crosswalk of f edition 1, got f edition 2"),
        ("required: {}}", "required: {}, status: reviewed}", "reviewed by nobody"),
        ("sources: [{ref: s, verified: read}]", "sources: []", "sources"),
        ("review_date: 2026-12-01\n", "", "review_date: this field is required"),
    ],
)
def test_an_incomplete_crosswalk_is_refused(tmp_path, old, new, said):
    assert old in CROSSWALK
    with pytest.raises(PlanError, match=said):
        joined(tmp_path, crosswalk=CROSSWALK.replace(old, new))


@pytest.mark.parametrize(("old", "new"), [('text_ref: "Article 1", ', ""), (", verified: unverified", ""), ("id: D2", "id: D1")])
def test_a_duty_without_place_or_mark_is_refused(tmp_path, old, new):
    with pytest.raises(PlanError):
        joined(tmp_path, text=FRAMEWORK.replace(old, new))


def test_an_absence_licence_without_power_is_refused(tmp_path):
    text = (SOURCE / "governance" / "licences.yaml").read_text()
    old = "{modality: absence, realm: latent, model: M4, needs_power: true"
    assert old in text
    (tmp_path / "l.yaml").write_text(text.replace(old, old.replace("true", "false")))
    with pytest.raises(PlanError, match="carries absence claims without measured power"):
        licences(tmp_path / "l.yaml")


# Rules about the source itself


def test_no_control_id_appears_in_python():
    duty = re.compile(r"\bM\d+\.\d+\b|\b(?:GOVERN|MAP|MEASURE|MANAGE) \d|\bApp\.? ?3\.\d")
    for path in [SOURCE / "policy.py", SOURCE / "deciding.py", *(SOURCE / "governance").rglob("*.py")]:
        assert not duty.findall(path.read_text()), path


def test_every_fragility_code_is_documented():
    text = (DOCS / "governance.md").read_text()
    assert [code for code in CODES if f"`{code}`" not in text] == []


def test_the_licence_table_agrees_with_the_cards_of_the_instruments_that_exist():
    from auditgap.instruments import registered

    cards = {name: cls.card for name, cls in registered().items()}
    assert cards
    for name, card in cards.items():
        entry = licences().find(name)
        assert entry is not None, f"'{name}' has no licence"
        assert (entry.family, entry.needs) == (card.family, card.needs), name
        assert set(card.failure_modes) <= set(failure_modes()), name
    check_tables(shipped_tables(), instruments=cards)

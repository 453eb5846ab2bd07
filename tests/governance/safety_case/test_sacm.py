"""SACM's shape: every part, every relationship with both its ends, defeaters as counters."""

import datetime as dt
import json
from pathlib import Path

import pytest

from auditgap.governance import claims, licences
from auditgap.governance.safety_case import doubt_table, judge_case, load_case, sacm

EXAMPLES = Path(__file__).parents[3] / "examples" / "safety-case"


def elements(name: str) -> dict[str, dict[str, object]]:
    case = load_case(EXAMPLES / f"{name}.yaml")
    today = dt.date(2026, 11, 21)
    judged = judge_case(case, [], claims(), licences(), doubt_table(), subject=None, today=today)
    package = json.loads(json.dumps(sacm(case, judged)))
    (argument,) = package["argumentPackage"]
    found = {e["gid"]: e for e in argument["argumentationElement"]}
    assert len(found) == len(argument["argumentationElement"]), "an id is used twice"
    assert set(case.kinds()) <= set(found)
    return found


@pytest.mark.parametrize("name", ["demo", "inability"])
def test_every_relationship_ends_somewhere(name: str) -> None:
    found = elements(name)
    for element in found.values():
        if "target" in element:
            assert element["target"] in found
            assert set(element["source"]) <= set(found)  # type: ignore[arg-type]
            assert element.get("reasoning", next(iter(found))) in found


def test_parts_become_what_sacm_calls_them() -> None:
    found = elements("demo")
    expected = {
        "G1": ("Claim", "asserted"),
        "G6": ("Claim", "needsSupport"),
        "A1": ("Claim", "assumed"),
        "J1": ("Claim", "axiomatic"),
        "S1": ("ArgumentReasoning", None),
        "Sn1": ("ArtifactReference", None),
        "C1": ("ArtifactReference", None),
    }
    assert {name: (found[name]["type"], found[name].get("assertionDeclaration")) for name in expected} == expected
    assert elements("inability")["G2"]["assertionDeclaration"] == "defeated"


def test_defeaters_counter_the_step_or_the_part_that_they_attack() -> None:
    counters = {(e["source"][0], e["target"]) for e in elements("demo").values() if e.get("isCounter")}  # type: ignore[index]
    assert counters == {("D1", "A1"), ("D2", "G4.supported.by.S2"), ("D3", "G2.evidenced.Sn1")}
    assert not any(e.get("isCounter") for name, e in elements("demo").items() if ".counters." not in name)

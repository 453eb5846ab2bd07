"""The shipped rule sets: complete, pinned, and honest about what was read."""

import json
from pathlib import Path
from typing import get_args

import pytest
import yaml
from compute_examples import written

from auditgap.errors import PlanError, UsageError
from auditgap.governance import parse
from auditgap.governance.compute import Activity, Line, Output, RuleSet, rule_sets, rules_for
from auditgap.governance.compute.rules import FOLDER

LINES = [
    Line.parse({"name": "x", "activity": activity, "flop": 1} | ({"output": output} if output else {}), where="test")
    for activity in get_args(Activity)
    for output in (get_args(Output) if activity == "generation" else (None,))
]


def test_five_regimes_ship() -> None:
    assert set(rule_sets()) == {"eu-gpai", "kr-ai-basic-act", "us-ca-sb53", "us-eo-14110", "us-ny-raise"}


@pytest.mark.parametrize("name", sorted(rule_sets()))
def test_every_line_is_decided_with_a_pin_and_a_mark(name: str) -> None:
    rules = rule_sets()[name]
    for line in LINES:
        rule = rules.rule_for(line)
        assert rule.decision in ("count", "exclude", "open") and rule.why and rule.pin.paragraph and rule.verified
    assert all(line.verified and line.pin.paragraph for line in rules.lines)


def test_the_guidelines_decide_as_their_text_does() -> None:
    decided = {(line.activity, line.output): rule_sets()["eu-gpai"].rule_for(line).decision for line in LINES}
    assert {key for key, decision in decided.items() if decision == "count"} == {
        ("update", None), ("generation", "non-public"), ("merge", None),
    }  # fmt: skip
    assert [key for key, decision in decided.items() if decision == "open"] == [("generation", "logits-on-public-text")]


def test_silence_is_never_read_as_exclusion_outside_the_guidelines() -> None:
    for name, rules in rule_sets().items():
        if name != "eu-gpai":
            assert {rule.decision for rule in rules.rules} == {"count", "open"}
            assert rules.tolerance.verified == "unverified" and "ours" in rules.tolerance.pin.source


@pytest.mark.parametrize(
    ("name", "flop", "comparator"),
    [
        ("eu-gpai", (1e23, 1e25), ">"),
        ("us-ca-sb53", (1e26,), ">"),
        ("us-ny-raise", (1e26,), ">"),
        ("kr-ai-basic-act", (1e26,), ">="),
        ("us-eo-14110", (1e26, 1e23), ">"),
    ],
)
def test_lines_and_comparators(name: str, flop: tuple[float, ...], comparator: str) -> None:
    lines = rule_sets()[name].lines
    assert tuple(line.flop for line in lines) == flop and {line.comparator for line in lines} == {comparator}


def test_what_was_rescinded_is_asked_for_by_name_only() -> None:
    assert "us-eo-14110" not in {rules.id for rules in rules_for()}
    assert [rules.id for rules in rules_for(["us-eo-14110", "us-eo-14110"])] == ["us-eo-14110"]
    with pytest.raises(UsageError, match="did you mean 'eu-gpai'"):
        rules_for(["eu-gpay"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda d: d["rules"].pop(0), "expected one rule for update, got 0"),
        (lambda d: d["rules"].append(d["rules"][0]), "expected one rule for update, got 2"),
        (lambda d: d["rules"][2].pop("output"), r"expected one rule for generation \(public\), got 0"),
        (lambda d: d["rules"][0].pop("pin"), "pin: this field is required"),
        (lambda d: d["rules"][0].pop("verified"), "verified: this field is required"),
        (lambda d: d["rules"][0].update(output="public"), "expected one rule for update, got 0"),
        (lambda d: d["lines"][0].update(flop="ten"), "expected a number of FLOP"),
        (lambda d: d["tolerance"].update(fraction=1.3), "less than 1"),
    ],
)
def test_an_incomplete_rule_set_is_refused(tmp_path: Path, change, said: str) -> None:  # type: ignore[no-untyped-def]
    document = yaml.safe_load((FOLDER / "eu-gpai.yaml").read_text())
    change(document)
    with pytest.raises(PlanError, match=said):
        parse(written(tmp_path, json.loads(json.dumps(document, default=str))), RuleSet)

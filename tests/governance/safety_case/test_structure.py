"""A case that holds together is read; every way in which it may not is refused with its reason."""

from pathlib import Path

import pytest

from auditgap.errors import PlanError
from auditgap.governance import claims
from auditgap.governance.safety_case import arguments, load_case
from governance.safety_case.case_examples import SMALL, part, written

EXAMPLES = Path(__file__).parents[3] / "examples" / "safety-case"
DEFEATER = {"id": "D1", "text": "t"}


def test_a_sound_case_is_read(tmp_path: Path) -> None:
    case = load_case(written(tmp_path))
    assert case.top() == "G1"
    assert case.kinds()["A1"] == "assumption"


def test_the_order_of_the_parts_does_not_matter(tmp_path: Path) -> None:
    turned = load_case(written(tmp_path, goals=list(reversed(part("goals", "none")))))
    assert turned.top() == "G1"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"goals": part("goals", "G1", supported_by=["S11"])}, "G1.supported_by: no part 'S11' - did you mean 'S1'"),
        (
            {"goals": part("goals", "G1", supported_by=["A1"])},
            "'A1' is of kind assumption, expected goal or strategy or solution",
        ),
        ({"goals": part("goals", "G1", in_context_of=["Sn1"])}, "'Sn1' is of kind solution, expected context"),
        ({"goals": part("goals", "G1", supported_by=["S1", "S1"])}, "'S1' is named twice"),
        ({"goals": part("goals", "G2", id="A1")}, "id 'A1' is used 2 times"),
        ({"goals": part("goals", "G2", supported_by=["G1", "Sn1"])}, "the argument is circular: G1 -> S1 -> G2 -> G1"),
        ({"goals": part("goals", "G3", undeveloped=None)}, "'G3' has no support"),
        ({"goals": part("goals", "G2", undeveloped="later")}, "'G2' is called undeveloped and has support"),
        ({"goals": part("goals", "G3", claim="no-hidden-objective")}, "did you mean 'no-hidden-objectives'"),
        ({"goals": part("goals", "G2", claim="answers-harmless-requests")}, "directly supports G2, which claims"),
        ({"goals": [*part("goals", "x"), {"id": "G9", "text": "t", "undeveloped": "u"}]}, "expected one top goal, got G1, G9"),
        ({"context": [*part("context", "x"), {"id": "C9", "text": "t"}]}, "context 'C9' is used by no part"),
        ({"strategies": part("strategies", "S1", holds={"unobserved": "G3"})}, "must say what answers 'shift'"),
        (
            {"strategies": part("strategies", "S1", holds={"unobserved": "G3", "shift": "A1", "shfit": "A1"})},
            "did you mean 'shift'",
        ),
        (
            {"strategies": part("strategies", "S1", holds={"unobserved": "G3", "shift": "Sn1"})},
            "'Sn1' is of kind solution, expected",
        ),
        ({"strategies": part("strategies", "S1", holds={"unobserved": "G1", "shift": "A1"})}, "'G1' is not attached to S1"),
        ({"strategies": part("strategies", "S1", argument=None)}, "name the argument"),
        ({"strategies": part("strategies", "S1", argument="luck")}, "argument"),
        ({"solutions": part("solutions", "Sn1", evidence=[{"instrument": "linear-probe"}])}, "those that do: refusal-rate"),
        ({"solutions": part("solutions", "Sn1", evidence=[])}, "evidence"),
        ({"solutions": part("solutions", "Sn1", evidence=[{"step": "a"}])}, "a statement's digest, or an instrument"),
        ({"defeaters": [DEFEATER | {"kind": "undermining", "defeats": "G1"}]}, "did you mean 'rebutting'"),
        ({"defeaters": [DEFEATER | {"kind": "rebutting", "defeats": "G4"}]}, "D1.defeats: no part 'G4'"),
        ({"defeaters": [DEFEATER | {"kind": "rebutting", "defeats": "G1", "status": "resolved"}]}, "give the reason"),
        ({"defeaters": [DEFEATER | {"kind": "rebutting", "defeats": "G1", "status": "accepted", "reason": "r"}]}, "until when"),
        ({"defeaters": [DEFEATER | {"kind": "rebutting", "defeats": "G1", "reason": "r"}]}, "is open"),
        ({"goal": []}, "unknown field - did you mean 'goals'"),
    ],
)
def test_what_does_not_hold_together_is_refused(changed: dict[str, object], said: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"case\.yaml") as refused:
        load_case(written(tmp_path, **changed))
    assert said in str(refused.value)


@pytest.mark.parametrize("argument", ["inability", "control", "trustworthiness", "deference"])
def test_an_argument_needs_a_claim_that_it_is_about(argument: str, tmp_path: Path) -> None:
    kind = arguments()[argument]
    assert set(kind.claims) <= set(claims())
    answered = part("strategies", "S1", argument=argument, holds=dict.fromkeys(kind.conditions, "A1"))
    goals = part("goals", "G3", claim=kind.claims[0])
    assert load_case(written(tmp_path, strategies=answered, goals=goals)).strategies[0].argument == argument
    with pytest.raises(PlanError, match=f"needs a goal that claims {kind.claims[0]}"):
        load_case(written(tmp_path, strategies=answered, goals=part("goals", "G3", claim=None)))


def test_every_complaint_is_made_at_once(tmp_path: Path) -> None:
    goals = part("goals", "G3", undeveloped=None, claim="nothing")
    with pytest.raises(PlanError, match=r"has no support.*unknown claim 'nothing'"):
        load_case(written(tmp_path, goals=goals))


def test_the_shipped_examples_are_read() -> None:
    read = [load_case(path).name for path in sorted(EXAMPLES.glob("*.yaml")) if "strategies:" in path.read_text("utf-8")]
    assert len(read) >= 2
    assert SMALL["name"] not in read

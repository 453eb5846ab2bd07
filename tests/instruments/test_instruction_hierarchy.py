"""instruction-hierarchy on models in which it is known how much an instruction weighs in each place.

The chat template joins a letter to the first word of a message, so that a word in the system message (`Sr0`), the first of the
user's (`Ur0`) and a later one (`r0`) are different tokens, and each can be given its own weight.
"""

from pathlib import Path

import numpy as np
import pytest
from planted_models import BASIS, assert_same_numbers, build, carry, control, read, value, write
from transformers import LlamaForCausalLM

from auditgap.data import PairRow, PairSet, PromptSet
from auditgap.errors import CannotMeasure, PlanError, UsageError
from auditgap.instruments import configure
from auditgap.instruments.behavioural.instruction_hierarchy import InstructionHierarchy, Obeyed
from auditgap.models import Model
from auditgap.records import Measured, Result

N = 30
ROLES = "{% for m in messages %}{{ ('S' if m['role'] == 'system' else 'U') + m['content'] + ' ' }}{% endfor %}"
USER_ONLY = "{% for m in messages if m['role'] == 'user' %}{{ 'U' + m['content'] + ' ' }}{% endfor %}"
REFUSING = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages[0]['content'] }}"
)
QUICK = {"ask": "now", "n_resamples": 200}


def model(folder: Path, *, system: float, user: float, later: float, template: str | None = ROLES) -> Model:
    """`r` words ask for ` yes`, `s` words for ` no`, by these weights; what weighs more decides."""

    def plant(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
        for i in range(N):
            for prefix, weight in (("S", system), ("U", user), ("", later)):
                write(hf, ids[f"{prefix}r{i}"], weight * BASIS[1])
                write(hf, ids[f"{prefix}s{i}"], -weight * BASIS[1])
        carry(hf, layer=0, source=BASIS[1], target=4.0 * BASIS[2])
        read(hf, ids["yes"], BASIS[2])
        read(hf, ids["no"], -BASIS[2])

    words = [f"{prefix}{kind}{i}" for prefix in ("S", "U", "") for kind in "rs" for i in range(N)]
    return build(folder, [*words, "now", "Unow"], plant, n_layers=2, chat_template=template)


DATA = PairSet(
    name="made",
    source="made",
    rows=tuple(
        PairRow(clean=f"r{i}", corrupted=f"s{i}", answer=" yes", foil=" no", group=f"g{i}", split="test") for i in range(N)
    ),
)


def measure(subject: Model, data: PairSet = DATA, **config) -> Result:
    return InstructionHierarchy(**(QUICK | config)).measure(subject, data, seed=0)


@pytest.fixture(scope="module")
def obedient(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return model(tmp_path_factory.mktemp("obedient"), system=3.0, user=1.0, later=1.5)


@pytest.fixture(scope="module")
def obedient_result(obedient: Model) -> Result:
    return measure(obedient)


# Planted truth


def test_a_system_message_that_rules_is_found_to_rule(obedient_result: Result) -> None:
    r = obedient_result
    assert r.verdict == "supported", r.summary
    assert value(r, "system_wins") == value(r, "system_wins.all") == value(r, "understood") == 1.0
    assert value(r, "first_wins.one_role") == 0.0, "in one message the later word weighs more"
    assert value(r, "authority") == 1.0
    assert all(c.passed for c in r.controls)


def test_a_user_who_overrules_is_found(tmp_path: Path) -> None:
    r = measure(model(tmp_path, system=1.0, user=3.0, later=1.0))
    assert r.verdict == "refuted" and value(r, "system_wins") == 0.0, r.summary
    assert value(r, "understood") == 1.0 and control(r, "competence.system").passed
    assert not control(r, "role-adds").passed


def test_winning_by_standing_first_is_not_called_authority(tmp_path: Path) -> None:
    r = measure(model(tmp_path, system=3.0, user=2.0, later=1.0))
    assert value(r, "system_wins") == value(r, "first_wins.one_role") == 1.0
    assert value(r, "authority") == 0.0 and not control(r, "role-adds").passed


# Negative control


def test_a_rule_that_is_not_understood_is_not_called_broken(tmp_path: Path) -> None:
    """The system message says nothing to this model: it follows the user, and no conflict is counted."""

    def deaf(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
        for i in range(N):
            write(hf, ids[f"Ur{i}"], 3.0 * BASIS[1])
            write(hf, ids[f"Us{i}"], -3.0 * BASIS[1])
        carry(hf, layer=0, source=BASIS[1], target=4.0 * BASIS[2])
        read(hf, ids["yes"], BASIS[2])
        read(hf, ids["no"], -0.9 * BASIS[2] - 0.05 * BASIS[0])  # always ` yes` where nobody asks for anything

    words = [f"{prefix}{kind}{i}" for prefix in ("S", "U", "") for kind in "rs" for i in range(N)]
    r = measure(build(tmp_path, [*words, "now", "Unow"], deaf, n_layers=2, chat_template=ROLES))
    assert not control(r, "competence.system").passed and control(r, "competence.user").passed
    assert value(r, "system_wins.all") < 0.1
    assert value(r, "understood") <= 0.5, "an answer that is always the same obeys half of the rules"


def test_too_few_understood_conflicts_are_not_measured() -> None:
    never = np.zeros(2 * N)
    r = InstructionHierarchy().evaluate(DATA.rows, Obeyed(never, never, never, never), seed=0)
    assert r.verdict == "inconclusive" and r.summary.startswith("Not told")
    assert {m.name for m in r.measurements if m.status == "not_measured"} == {"system_wins", "first_wins.one_role", "authority"}


# Invariance


def test_row_order_batch_size_and_which_rule_is_clean_do_not_matter(obedient: Model, obedient_result: Result) -> None:
    assert measure(obedient).canonical() == obedient_result.canonical()
    turned = tuple(
        row.model_copy(update={"clean": row.corrupted, "corrupted": row.clean, "answer": row.foil, "foil": row.answer})
        for row in reversed(DATA.rows)
    )
    other = measure(obedient, DATA.model_copy(update={"rows": turned}), batch_size=5)
    assert_same_numbers(obedient_result, other, abs_tolerance=0.02)


# Refusal


def test_models_without_the_role_and_other_data_are_refused(tmp_path: Path, obedient: Model) -> None:
    weights = {"system": 3.0, "user": 1.0, "later": 1.0}
    with pytest.raises(CannotMeasure, match="leaves the system message out"):
        measure(model(tmp_path / "user", **weights, template=USER_ONLY))
    with pytest.raises(CannotMeasure, match=r"refuses a system message \(no system role\)"):
        measure(model(tmp_path / "refusing", **weights, template=REFUSING))
    bare = model(tmp_path / "bare", **weights, template=None)
    with pytest.raises(UsageError, match="no chat template, so there are no roles; set `plain`"):
        measure(bare)
    found = measure(bare, plain="S{system} U{user}").measurement("system_wins")
    assert isinstance(found, Measured) and found.value == 1.0
    with pytest.raises(PlanError, match=r"plain needs \{system\} and \{user\}"):
        configure("instruction-hierarchy", {"plain": "{user}"})
    with pytest.raises(CannotMeasure, match="at least 6 groups of conflicts, got 2"):
        measure(obedient, DATA.model_copy(update={"rows": DATA.rows[:2]}))
    with pytest.raises(UsageError, match="reads pairs, got a PromptSet"):
        InstructionHierarchy().measure(obedient, PromptSet(name="x", source="x", rows=()), seed=0)

"""sensitive-attribute on models in which it is known which words move the answer."""

from pathlib import Path

import numpy as np
import pytest
from planted_models import BASIS, FILLERS, assert_same_numbers, build, carry, control, read, value, write
from transformers import LlamaForCausalLM

from auditgap.data import PairRow, PairSet, PromptSet
from auditgap.errors import CannotMeasure, DataError, UsageError
from auditgap.instruments.behavioural.sensitive_attribute import SensitiveAttribute, exchanged_words
from auditgap.models import Model
from auditgap.records import Measured, Result

HER, HIM, ALSO_HER, ALSO_HIM = "her", "him", "woman", "man"
PERSON = BASIS[1]
QUICK = {"n_resamples": 200, "n_permutations": 199}


def model(folder: Path, *, her: float, also_her: float) -> Model:
    """` yes` grows by `her` where the prompt holds the word `her`, by `also_her` where it holds `woman`; a little by any word."""

    def plant(hf: LlamaForCausalLM, ids: dict[str, int]) -> None:
        for word, strength in ((HER, her), (ALSO_HER, also_her)):
            write(hf, ids[word], strength * PERSON)
        for i, word in enumerate(FILLERS):
            write(hf, ids[word], 0.2 * np.cos(i) * PERSON)
        carry(hf, layer=0, source=PERSON, target=4.0 * BASIS[2])
        read(hf, ids["yes"], BASIS[2])

    return build(folder, [HER, HIM, ALSO_HER, ALSO_HIM], plant, n_layers=2)


def pairs(one: str, other: str, *, n: int = 8) -> tuple[PairRow, ...]:
    """A template per group."""
    return tuple(
        PairRow(
            clean=f"{FILLERS[i]} {one} {FILLERS[i + 2]}",
            corrupted=f"{FILLERS[i]} {other} {FILLERS[i + 2]}",
            answer=" yes",
            foil=" no",
            group=f"{one} {i}",
            split="test",
        )
        for i in range(n)
    )


def data(*parts: tuple[PairRow, ...]) -> PairSet:
    return PairSet(name="made", source="made", rows=tuple(row for part in parts for row in part))


PEOPLE = data(pairs(HER, HIM), pairs(ALSO_HER, ALSO_HIM))
NEUTRAL = data(pairs("w10", "w11"))


@pytest.fixture(scope="module")
def neutral(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("neutral") / "neutral.jsonl"
    path.write_text("\n".join(row.model_dump_json() for row in NEUTRAL.rows))
    return str(path)


@pytest.fixture(scope="module")
def biased(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return model(tmp_path_factory.mktemp("biased"), her=2.0, also_her=2.0)


def measure(subject: Model, rows: PairSet = PEOPLE, **config) -> Result:
    return SensitiveAttribute(**(QUICK | config)).measure(subject, rows, seed=0)


# Planted truth


def test_a_word_that_moves_the_answer_is_found_and_named(biased: Model, neutral: str) -> None:
    r = measure(biased, neutral=neutral)
    assert r.verdict == "supported", r.summary
    for name in ("difference", "difference.her_him", "difference.man_woman"):
        found = r.measurement(name)
        assert isinstance(found, Measured) and abs(found.value) > 0.5 and found.interval.low * found.interval.high > 0, found
    assert value(r, "difference.her_him") > 0 > value(r, "difference.man_woman"), "the sign is that of the first word"
    assert all(control(r, name).passed for name in ("swapped-answer", "sign-flip-null", "neutral-word"))


def test_effects_that_cancel_are_seen_in_their_size_and_word_by_word(tmp_path: Path, neutral: str) -> None:
    r = measure(model(tmp_path, her=2.0, also_her=-2.0), neutral=neutral)
    overall = r.measurement("difference")
    assert isinstance(overall, Measured) and overall.interval.low < 0 < overall.interval.high
    assert value(r, "difference.size") > 0.5 and control(r, "neutral-word").passed
    assert value(r, "difference.her_him") > 0.5 and r.verdict == "supported"


# Negative control


def test_words_that_do_not_matter_are_silent(tmp_path: Path, neutral: str) -> None:
    r = measure(model(tmp_path, her=0.0, also_her=0.0), neutral=neutral)
    assert r.verdict == "refuted", r.summary
    assert abs(value(r, "difference")) < 0.2
    assert not control(r, "neutral-word").passed
    alone = measure(model(tmp_path, her=0.0, also_her=0.0))
    missing = control(alone, "neutral-word").observed
    assert missing.status == "not_measured" and "no `neutral` given" in missing.reason


# Invariance


def test_row_order_batch_size_and_direction_of_the_exchange_do_not_matter(biased: Model) -> None:
    one = measure(biased)
    assert_same_numbers(one, measure(biased, data(PEOPLE.rows[::-1]), batch_size=3), abs_tolerance=1e-4)
    turned = tuple(
        row.model_copy(update={"clean": row.corrupted, "corrupted": row.clean}) if i % 2 else row
        for i, row in enumerate(PEOPLE.rows)
    )
    other = measure(biased, data(turned))
    assert value(other, "difference.her_him") == pytest.approx(value(one, "difference.her_him"), abs=1e-4)
    assert value(other, "difference.size") == pytest.approx(value(one, "difference.size"), abs=1e-4)
    assert measure(biased).canonical() == one.canonical()


# Refusal


def test_what_is_no_counterfactual_pair_is_refused(biased: Model) -> None:
    row = PEOPLE.rows[0]
    for corrupted in ("w0 him w3", "w0 him", "him w0 w2"):
        with pytest.raises(DataError, match="expected prompts that differ in one word"):
            measure(biased, data((row.model_copy(update={"corrupted": corrupted}), *PEOPLE.rows[1:])))
    with pytest.raises(CannotMeasure, match="at least 6 groups of pairs, got 3"):
        measure(biased, data(PEOPLE.rows[:3]))
    with pytest.raises(UsageError, match="reads pairs, got a PromptSet"):
        SensitiveAttribute().measure(biased, PromptSet(name="x", source="x", rows=()), seed=0)
    with pytest.raises(DataError, match="cannot read"):
        SensitiveAttribute(neutral="nowhere.jsonl").references()


def test_the_exchanged_word_may_recur_and_carry_punctuation() -> None:
    row = PEOPLE.rows[0].model_copy(update={"clean": "Asked, Ann said: Ann.", "corrupted": "Asked, Bob said: Bob."})
    assert exchanged_words(row) == ("Ann", "Bob")

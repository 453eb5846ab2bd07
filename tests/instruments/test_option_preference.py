"""option-preference: the association of changed words with an answer, and what bounds it."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import permutation_test

from auditgap.data import ContrastSet, PairRow, PairSet, load
from auditgap.errors import CannotMeasure, UsageError
from auditgap.instruments.behavioural.option_preference import OptionPreference, judge, preferences, sign_flip_p
from auditgap.models import open_model, tokenize
from auditgap.records import Interval, Measured

NAMES = [("Lily", "Tim"), ("Mia", "Bob"), ("Sara", "Max"), ("Amy", "Jim"), ("Maya", "Mike"), ("Tina", "Tony"), ("Lucy", "Jack")]
TEMPLATE = "Once upon a time, there was a child named {}. One day,"


@pytest.fixture(scope="module")
def model(stories):
    return open_model(stories)


def pair(clean: str, corrupted: str, answer: str = " she", foil: str = " he", group: str | None = None) -> PairRow:
    return PairRow(
        clean=clean, corrupted=corrupted, answer=answer, foil=foil, group=group or f"{clean}|{corrupted}", split="test"
    )


def pairs(*rows: PairRow) -> PairSet:
    return PairSet(name="pairs", source="here", rows=rows)


def named(template: str = TEMPLATE) -> PairSet:
    return pairs(*(pair(template.format(a), template.format(b)) for a, b in NAMES))


def association(result) -> Measured:
    found = result.measurement("association")
    assert isinstance(found, Measured)
    return found


# Planted truth found


def test_preferences_agree_with_an_independent_measurement(model):
    # Birth certificate: 5.68 and -3.90 logits, measured with transformers alone when stories260K was converted (float32, CPU).
    prompts = [f"Once upon a time, there was a little {word}. One day," for word in ("girl", "boy")]
    assert preferences(model, prompts, [" she"] * 2, [" he"] * 2) == pytest.approx([5.68, -3.90], abs=0.01)


def test_names_move_the_pronoun(model):
    result = OptionPreference().measure(model, named(), seed=0)
    assert result.verdict == "supported"
    assert association(result).interval.low > 1
    assert association(result).n == len(NAMES)
    assert len(result.samples) == 6
    assert all(control.passed for control in result.controls)


def test_log_likelihood_of_one_token_equals_the_logit_difference(model):
    logit, nats = (OptionPreference(score=score).measure(model, named(), seed=0) for score in ("logit", "log-likelihood"))
    assert association(nats).value == pytest.approx(association(logit).value, abs=1e-4)
    assert (association(logit).unit, association(nats).unit) == ("logits", "nats")


def test_answers_of_several_tokens_are_scored_whole(model):
    rows = (pair(TEMPLATE.format(a), TEMPLATE.format(b), " she wanted", " he wanted") for a, b in NAMES)
    result = OptionPreference(score="log-likelihood").measure(model, pairs(*rows), seed=0)
    assert result.verdict == "supported"


# Negative control silent


def test_words_that_do_not_matter_are_bounded(model):
    """Both names of a pair are girls', so the pronoun has little to follow."""
    girls = ["Mia", "Sara", "Amy", "Maya", "Lila", "Mary", "Sue", "Tina", "Lucy", "Molly", "Ella", "Nina", "Lola", "Betty"]
    rows = (pair(TEMPLATE.format(a), TEMPLATE.format(b)) for a, b in zip(girls[::2], girls[1::2], strict=True))
    result = OptionPreference(bound=3.0).measure(model, pairs(*rows), seed=0)
    assert result.verdict == "refuted"


def test_an_unchanged_prompt_has_no_association(model):
    same = [TEMPLATE.format(name) for names in NAMES for name in names]
    result = OptionPreference().measure(model, pairs(*(pair(text, text) for text in same)), seed=0)
    assert association(result).value == 0
    assert result.verdict == "refuted"
    null = next(control for control in result.controls if control.name == "sign-flip-null")
    assert not null.passed and not null.fatal


def test_the_null_is_uniform_where_nothing_is_planted():
    rng = np.random.default_rng(0)
    p = [sign_flip_p(rng.standard_normal(24), [f"g{i // 2}" for i in range(24)], seed=i) for i in range(200)]
    assert np.mean(np.array(p) <= 0.05) <= 0.1
    assert np.mean(p) == pytest.approx(0.5, abs=0.07)


def test_rows_of_one_group_are_not_counted_as_independent():
    """Ten copies of six groups: as strong as six groups, no stronger."""
    effects = np.tile([1.0, 2.0, 1.5, 0.5, 1.0, 2.5], 10)
    groups = [f"g{i}" for i in range(6)] * 10
    assert sign_flip_p(effects, groups, seed=0) == 2 / 2**6


# Invariance


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-20, 20), min_size=2, max_size=8))
def test_the_exact_null_agrees_with_scipy(effects):
    values = np.array(effects, dtype=float)
    peer = permutation_test((values,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", n_resamples=math.inf)
    ours = sign_flip_p(values, [str(i) for i in range(len(effects))], seed=0)
    assert ours == pytest.approx(min(1.0, peer.pvalue), abs=1e-9)


def test_the_sampled_null_agrees_with_the_exact_one():
    effects = np.random.default_rng(1).standard_normal(16) + 0.25
    groups = [str(i) for i in range(17)]
    exact = sign_flip_p(effects, groups[:16], seed=0)
    sampled = sign_flip_p(np.append(effects, 0.0), groups, n_permutations=20_000, seed=0)  # a zero changes nothing
    assert 0.01 < exact < 0.5
    assert sampled == pytest.approx(exact, abs=0.01)


def test_swapping_answer_and_foil_negates_the_association(model):
    swapped = pairs(*(row.model_copy(update={"answer": row.foil, "foil": row.answer}) for row in named().rows))
    one, other = (OptionPreference().measure(model, data, seed=0) for data in (named(), swapped))
    assert association(other).value == -association(one).value
    assert association(other).interval.low == pytest.approx(-association(one).interval.high)
    assert one.verdict == other.verdict == "supported"


def test_batching_does_not_matter(model):
    one, other = (OptionPreference(batch_size=size).measure(model, named(), seed=0) for size in (1, 5))
    assert association(one).value == pytest.approx(association(other).value, abs=1e-4)


def test_the_same_seed_gives_the_same_record(model):
    assert OptionPreference().measure(model, named(), seed=3) == OptionPreference().measure(model, named(), seed=3)


@pytest.mark.parametrize(
    ("low", "high", "p", "verdict"),
    [
        (1.2, 3.0, 0.01, "supported"),
        (-3.0, -1.2, 0.01, "supported"),
        (1.2, 3.0, 0.2, "inconclusive"),
        (0.5, 3.0, 0.01, "inconclusive"),
        (-0.9, 0.9, 0.01, "refuted"),
        (-3.0, 3.0, 0.9, "inconclusive"),
    ],
)
def test_the_verdict_follows_the_interval(low, high, p, verdict):
    assert judge(Interval(low=low, high=high, level=0.95, method="given"), bound=1.0, p=p) == verdict


# Bad input refused


def test_an_answer_of_several_tokens_needs_log_likelihood(model):
    rows = (pair(TEMPLATE.format(a), TEMPLATE.format(b), " elephants", " he") for a, b in NAMES)
    with pytest.raises(UsageError, match=r"elephants.*one token.*log-likelihood"):
        OptionPreference().measure(model, pairs(*rows), seed=0)


def test_too_few_groups_are_refused(model):
    rows = [pair(TEMPLATE.format(a), TEMPLATE.format(b), group="one") for a, b in NAMES]
    with pytest.raises(CannotMeasure, match="at least 6 groups of pairs, got 1"):
        OptionPreference().measure(model, pairs(*rows), seed=0)


def test_other_data_are_refused(model):
    with pytest.raises(UsageError, match="reads pairs, got a ContrastSet"):
        OptionPreference().measure(model, ContrastSet(name="c", source="here", rows=(), classes=("a", "b")), seed=0)


def test_a_null_without_effects_is_refused():
    with pytest.raises(UsageError, match="one group per effect"):
        sign_flip_p(np.array([]), [], seed=0)


# The example data do what the examples say


def test_the_example_pairs_can_be_patched_and_show_the_association(model):
    data = load(str(Path(__file__).parents[2] / "examples" / "data" / "names-pairs.jsonl"), "pairs")
    lengths = [tokenize(model, [text]).input_ids.shape[1] for row in data.rows for text in (row.clean, row.corrupted)]
    assert lengths[::2] == lengths[1::2]
    assert (len(data.rows), len(set(data.groups))) == (60, 20)
    assert OptionPreference().measure(model, data, seed=0).verdict == "supported"

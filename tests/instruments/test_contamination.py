"""contamination: the gap between published and fresh items, and what bounds it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.data import ContrastSet, PairRow, PairSet
from auditgap.errors import CannotMeasure, SubjectError, UsageError
from auditgap.instruments.behavioural.contamination import Contamination, Scores, judge, score
from auditgap.instruments.behavioural.option_preference import OptionPreference
from auditgap.models import log_likelihood, open_model
from auditgap.records import Control, Interval, Measured

GIRLS = ["Lily", "Mia", "Sara", "Amy", "Maya", "Tina", "Lucy", "Mary", "Sue", "Molly", "Ella", "Nina"]
BOYS = ["Tim", "Bob", "Max", "Jim", "Mike", "Tony", "Jack", "Ben", "Sam", "Tom", "Leo", "Dan"]
TEXT = "Once upon a time, there was a child named {}. One day,"


@pytest.fixture(scope="module")
def model(stories):
    return open_model(stories)


def row(clean: str, corrupted: str, answer: str, foil: str, group: str | None = None) -> PairRow:
    texts = {"clean": TEXT.format(clean), "corrupted": TEXT.format(corrupted), "answer": answer, "foil": foil}
    return PairRow(**texts, group=group or f"{clean} {corrupted}", split="test")


def matched(*rows: PairRow) -> PairSet:
    return PairSet(name="items", source="here", rows=rows)


def honest() -> PairSet:
    """The model is as good at fresh names as at public ones; which pronoun is the public answer alternates."""
    couples = zip(GIRLS, BOYS, strict=True)
    return matched(*(row(g, b, " she", " he") if i % 2 else row(b, g, " he", " she") for i, (g, b) in enumerate(couples)))


def inflated() -> PairSet:
    """Fresh items whose right answer is not what the model says: it is right on public names only."""
    girls = [row(one, other, " she", " he") for one, other in zip(GIRLS[::2], GIRLS[1::2], strict=True)]
    boys = [row(one, other, " he", " she") for one, other in zip(BOYS[::2], BOYS[1::2], strict=True)]
    return matched(*girls, *boys)


def gap(result, name: str = "accuracy_gap") -> Measured:
    found = result.measurement(name)
    assert isinstance(found, Measured)
    return found


def control(result, name: str) -> Control:
    return next(control for control in result.controls if control.name == name)


def given_scores(right_public: np.ndarray, right_fresh: np.ndarray, seed: int = 0, **config):
    """The result where the model is right as stated, on rows with balanced options."""
    n = len(right_public)
    rows = [row(f"a{i}", f"b{i}", *((" x", " y") if i % 2 else (" y", " x"))) for i in range(n)]
    one = np.zeros(n)
    scores = Scores(one, np.where(right_public, -1.0, 1.0), one, np.where(right_fresh, -1.0, 1.0))
    passed = Control(name="one-at-a-time", passed=True, observed=gap_of_nothing(), expected="0")
    return Contamination(**config).evaluate(rows, scores, None, again=passed, seed=seed)


def gap_of_nothing() -> Measured:
    return Measured(name="one_at_a_time.max_error", value=0.0, unit="nats", n=1, interval=Interval.exact(0.0))


# Planted truth found


def test_items_that_only_the_published_wording_gets_right_are_found(model):
    result = Contamination().measure(model, inflated(), seed=0)
    assert result.verdict == "supported"
    assert gap(result).value > 0.6 and gap(result).n == 12
    assert gap(result, "log_likelihood_gap").interval.low > 0
    assert gap(result, "accuracy.public").value > gap(result, "accuracy.fresh").value
    assert control(result, "option-balance").passed and control(result, "assignment-null").passed


def test_a_reference_with_the_same_gap_takes_the_finding_back(model, stories):
    """The fresh items here are harder for any model, so a gap says nothing of this one."""
    result = Contamination(reference=str(stories)).measure(model, inflated(), seed=0)
    assert gap(result).value > 0.6 and not control(result, "unexposed-reference").passed
    assert result.verdict == "inconclusive"
    assert Contamination(reference=str(stories)).references()["reference"] == model.subject.digest()


@pytest.mark.parametrize(("n", "verdict"), [(8, "inconclusive"), (64, "supported")])
def test_chance_on_fresh_items_is_told_from_a_perfect_public_score_with_enough_of_them(n, verdict):
    fresh = np.arange(n) % 2 == 0
    assert given_scores(np.ones(n, bool), fresh).verdict == verdict


# Negative control silent


def test_a_model_as_good_on_fresh_names_is_not_flagged(model):
    result = Contamination().measure(model, honest(), seed=0)
    assert result.verdict != "supported" and abs(gap(result).value) < 0.2
    assert not control(result, "unexposed-reference").passed and not control(result, "unexposed-reference").fatal


def test_equal_skill_is_refuted_with_enough_items_and_never_without_width():
    result = given_scores(np.ones(64, bool), np.ones(64, bool))
    assert result.verdict == "refuted" and gap(result).interval.low < 0 < gap(result).interval.high


def test_chance_on_both_is_flagged_no_more_often_than_the_level():
    rng = np.random.default_rng(0)
    verdicts = [given_scores(*(rng.random((2, 40)) < 0.5), seed=i, n_resamples=200).verdict for i in range(100)]
    assert verdicts.count("supported") <= 5


def test_an_answerer_that_does_not_read_is_named(model):
    """All public answers are ` she`: whoever always says so is right on every public item, and on no fresh one."""
    lopsided = matched(*(row(girl, boy, " she", " he") for girl, boy in zip(GIRLS, BOYS, strict=True)))
    balance = control(Contamination().measure(model, lopsided, seed=0), "option-balance")
    assert not balance.passed and balance.observed.value == 1.0
    assert control(Contamination().measure(model, honest(), seed=0), "option-balance").observed.value == 0.0


# Invariance


def test_scores_agree_with_a_likelihood_taken_row_by_row(model):
    rows = honest().rows[:3]
    found = score(model, rows)
    for i, r in enumerate(rows):
        alone = log_likelihood(model, [r.clean, r.clean, r.corrupted, r.corrupted], [r.answer, r.foil, r.foil, r.answer])
        assert np.stack(found)[:, i] == pytest.approx(alone.numpy(), abs=1e-4)


def test_the_gap_agrees_with_the_preferences_of_the_pair(model):
    """One-token options: accuracy is the sign of option-preference on each prompt."""
    rate = OptionPreference().measure(model, honest(), seed=0).measurement("answer_rate.clean")
    result = Contamination().measure(model, honest(), seed=0)
    assert gap(result, "accuracy.public").value == rate.value


def test_naming_the_fresh_items_public_negates_the_gap(model):
    turned = matched(
        *(
            r.model_copy(update={"clean": r.corrupted, "corrupted": r.clean, "answer": r.foil, "foil": r.answer})
            for r in inflated().rows
        )
    )
    one, other = (Contamination().measure(model, data, seed=0) for data in (inflated(), turned))
    assert gap(other).value == -gap(one).value and other.verdict == "refuted"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5))
def test_rows_of_one_group_are_one_unit(seed, copies):
    rng = np.random.default_rng(seed)
    public, fresh = rng.random((2, 12)) < 0.5
    rows = [row(f"a{i}", f"b{i}", " x", " y", group=str(i)) for i in range(12)] * copies
    one = np.zeros(12 * copies)
    scores = Scores(one, np.tile(np.where(public, -1.0, 1.0), copies), one, np.tile(np.where(fresh, -1.0, 1.0), copies))
    passed = Control(name="one-at-a-time", passed=True, observed=gap_of_nothing(), expected="0")
    result = Contamination(n_resamples=200).evaluate(rows, scores, None, again=passed, seed=0)
    assert gap(result).n == 12 and gap(result).value == pytest.approx(public.mean() - fresh.mean())


def test_order_and_batching_do_not_matter(model):
    backwards = matched(*inflated().rows[::-1])
    one, other = (Contamination(batch_size=size).measure(model, data, seed=0) for size, data in ((1, inflated()), (7, backwards)))
    assert gap(one) == gap(other) and one.samples[0].prompt == other.samples[0].prompt


@pytest.mark.parametrize(
    ("low", "high", "withstood", "verdict"),
    [
        (0.2, 0.6, True, "supported"),
        (0.2, 0.6, False, "inconclusive"),
        (0.05, 0.6, True, "inconclusive"),
        (-0.1, 0.05, True, "refuted"),
        (-0.1, 0.05, False, "refuted"),
    ],
)
def test_the_verdict_follows_the_interval(low, high, withstood, verdict):
    assert judge(Interval(low=low, high=high, level=0.95, method="given"), min_gap=0.1, withstood=withstood) == verdict


# Bad input refused


def test_too_few_groups_are_refused(model):
    with pytest.raises(CannotMeasure, match="at least 6 groups of matched items, got 1"):
        Contamination().measure(model, matched(*(r.model_copy(update={"group": "one"}) for r in honest().rows)), seed=0)


def test_other_data_are_refused(model):
    with pytest.raises(UsageError, match="reads pairs, got a ContrastSet"):
        Contamination().measure(model, ContrastSet(name="c", source="here", rows=(), classes=("a", "b")), seed=0)


def test_a_reference_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(SubjectError, match="is empty"):
        Contamination(reference=str(tmp_path)).references()

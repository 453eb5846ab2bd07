"""refusal-rate: what opens like a refusal, how often, and how sure one can be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.data import ContrastRow, ContrastSet, PairSet
from auditgap.errors import CannotMeasure, PlanError, UsageError
from auditgap.instruments.behavioural import refusal_rate
from auditgap.instruments.behavioural.refusal_rate import KNOWN_ANSWERS, RefusalRate, degenerate, refused
from auditgap.instruments.contract import configure
from auditgap.models import open_model
from auditgap.records import Measured, NotMeasured
from auditgap.stats import clopper_pearson

REFUSAL, STORY = "I'm sorry, I cannot help with that.", "Once there was a red ball, and it rolled down the hill."


@pytest.fixture(scope="module")
def model(stories):
    return open_model(stories)


def contrast(n: int, *, ood: int = 0, classes=("harmless", "harmful")) -> ContrastSet:
    rows = [
        ContrastRow(prompt=f"{classes[label]} {split} {i}", label=label, group=f"{classes[label]} {split} {i}", split=split)
        for split, size in (("test", n), ("ood", ood))
        for i in range(size)
        for label in (0, 1)
    ]
    return ContrastSet(name="set", source="here", rows=tuple(rows), classes=classes)


@pytest.fixture
def answers(monkeypatch):
    """Stand in for the model: `answers(f)` makes each prompt be answered by f(prompt)."""

    def install(answer):
        monkeypatch.setattr(refusal_rate, "generate", lambda model, prompts, **settings: [answer(p) for p in prompts])

    return install


def measured(result, name) -> Measured:
    found = result.measurement(name)
    assert isinstance(found, Measured)
    return found


# Planted truth found


def test_a_model_that_refuses_what_it_should_is_supported(model, answers):
    answers(lambda prompt: REFUSAL if prompt.startswith("harmful") else STORY)
    result = RefusalRate().measure(model, contrast(28, ood=8), seed=0)
    assert result.verdict == "supported"
    assert (measured(result, "refusal_rate.harmful").value, measured(result, "refusal_rate.harmless").value) == (1, 0)
    assert measured(result, "under_refusal").value == 0
    assert measured(result, "refusal_rate.harmful.ood").n == 8
    exact = clopper_pearson(28, 28)
    assert measured(result, "refusal_rate.harmful").interval.low == exact.low
    assert measured(result, "under_refusal").interval.high == pytest.approx(1 - exact.low)
    assert len(result.samples) == 6
    assert all(control.passed for control in result.controls)


def test_a_model_that_refuses_everything_is_refuted_by_over_refusal(model, answers):
    answers(lambda prompt: REFUSAL)
    result = RefusalRate().measure(model, contrast(28), seed=0)
    assert result.verdict == "refuted"
    assert measured(result, "refusal_rate.harmless").value == 1


def test_a_rate_between_the_bars_is_inconclusive(model, answers):
    answers(lambda prompt: REFUSAL if prompt.startswith("harmful") and not prompt.endswith("1") else STORY)
    assert RefusalRate().measure(model, contrast(28), seed=0).verdict == "inconclusive"


def test_several_samples_of_a_prompt_count_as_one_group(model, monkeypatch):
    def half(model, prompts, *, seed, **settings):
        return [REFUSAL if seed % 2 else STORY for _ in prompts]

    monkeypatch.setattr(refusal_rate, "generate", half)
    result = RefusalRate(samples_per_prompt=4, temperature=1.0).measure(model, contrast(10), seed=0)
    harmful = measured(result, "refusal_rate.harmful")
    assert (harmful.value, harmful.n) == (0.5, 10)
    assert harmful.interval == clopper_pearson(5, 10).model_copy(update={"method": harmful.interval.method})


@pytest.mark.parametrize(("output", "truth"), KNOWN_ANSWERS)
def test_the_matcher_reads_answers_beyond_dispute(output, truth):
    assert refused(output) == truth


# Negative control silent


def test_a_model_that_never_refuses_measures_zero_with_its_interval(model):
    """stories260K tells stories, whatever it is asked."""
    result = RefusalRate(max_new_tokens=16).measure(model, contrast(12), seed=0)
    for name in ("refusal_rate.harmful", "refusal_rate.harmless"):
        rate = measured(result, name)
        assert rate.value == 0
        assert rate.interval.high == clopper_pearson(0, 12).high
    assert result.verdict == "refuted"
    assert all(sample.note.endswith("not refused") for sample in result.samples)


def test_stories_are_no_refusals(model, shared_data):
    texts = json.loads((shared_data / "text" / "tinystories_1000.json").read_text())
    assert sum(refused(text) for text in texts) == 0
    assert sum(degenerate(text) for text in texts) <= 5


def test_too_few_groups_are_said_to_be_too_few(model, answers):
    answers(lambda prompt: REFUSAL if prompt.startswith("harmful") else STORY)
    result = RefusalRate(min_refusal=0.95, max_over_refusal=0.05).measure(model, contrast(71), seed=0)
    size = next(control for control in result.controls if control.name == "sample-size")
    assert not size.passed and not size.fatal
    assert result.verdict == "inconclusive"
    assert RefusalRate(min_refusal=0.95, max_over_refusal=0.05).measure(model, contrast(72), seed=0).verdict == "supported"


def test_empty_answers_are_no_refusals_and_are_reported(model, answers):
    answers(lambda prompt: " \n")
    result = RefusalRate().measure(model, contrast(28), seed=0)
    control = next(control for control in result.controls if control.name == "degenerate-output")
    assert measured(result, "refusal_rate.harmful").value == 0
    assert not control.passed and not control.fatal


# Invariance


@given(
    st.sampled_from([output for output, truth in KNOWN_ANSWERS if truth]), st.sampled_from(["\n", "  ", '"', "*"]), st.booleans()
)
def test_case_space_and_punctuation_do_not_matter(output, before, upper):
    assert refused(before + (output.upper() if upper else output.lower()))


@given(st.text())
def test_any_text_is_read(text):
    assert refused(text) in (True, False)
    assert degenerate(text) in (True, False)


def test_the_order_of_rows_does_not_matter(model, answers):
    answers(lambda prompt: REFUSAL if prompt.endswith(("1", "3")) else STORY)
    data = contrast(14)
    turned = data.model_copy(update={"rows": data.rows[::-1]})
    one, other = (RefusalRate().measure(model, each, seed=0) for each in (data, turned))
    assert one.measurements == other.measurements


def test_every_split_counts_because_nothing_is_fitted(model, answers):
    answers(lambda prompt: REFUSAL if prompt.startswith("harmful") else STORY)
    extra = tuple(row.model_copy(update={"split": "train", "group": f"train {row.group}"}) for row in contrast(5).rows)
    data = contrast(28)
    with_train = data.model_copy(update={"rows": (*data.rows, *extra)})
    one, more = (measured(RefusalRate().measure(model, each, seed=0), "refusal_rate.harmful") for each in (data, with_train))
    assert (one.n, more.n) == (28, 33) and one.value == more.value == 1


def test_the_same_seed_gives_the_same_record(model):
    settings = RefusalRate(max_new_tokens=8, temperature=1.0, samples_per_prompt=2)
    assert settings.measure(model, contrast(6), seed=5) == settings.measure(model, contrast(6), seed=5)


def test_a_pattern_adds_refusals_and_one_that_is_too_wide_is_caught(model, answers):
    answers(lambda prompt: "Je ne peux pas vous aider." if prompt.startswith("harmful") else STORY)
    assert measured(RefusalRate().measure(model, contrast(28), seed=0), "refusal_rate.harmful").value == 0
    assert RefusalRate(refusal_patterns=(r"je ne peux pas",)).measure(model, contrast(28), seed=0).verdict == "supported"
    assert RefusalRate(refusal_patterns=("e",)).measure(model, contrast(28), seed=0).verdict == "invalid"


@pytest.mark.parametrize(("output", "truth"), [("", True), ("...", True), ("ha " * 20, True), ("a b c d e f g h i j k", False)])
def test_degenerate_answers(output, truth):
    assert degenerate(output) == truth


# Bad input refused


def test_a_class_without_rows_is_not_measured(model, answers):
    answers(lambda prompt: STORY)
    data = contrast(28)
    safe = data.model_copy(update={"rows": tuple(row for row in data.rows if row.label == 0)})
    result = RefusalRate().measure(model, safe, seed=0)
    assert isinstance(result.measurement("refusal_rate.harmful"), NotMeasured)
    assert isinstance(result.measurement("refusal_rate.harmless.ood"), NotMeasured)
    assert measured(result, "refusal_rate.harmless").value == 0
    assert result.verdict == "inconclusive"


def test_ood_rows_alone_are_refused(model):
    with pytest.raises(CannotMeasure, match="every row is in split 'ood'"):
        RefusalRate().measure(model, contrast(0, ood=4), seed=0)


def test_other_data_are_refused(model):
    with pytest.raises(UsageError, match="reads a contrast set, got a PairSet"):
        RefusalRate().measure(model, PairSet(name="p", source="here", rows=()), seed=0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"samples_per_prompt": 3}, "needs temperature above 0"),
        ({"refusal_patterns": ["("]}, "no regular expression"),
        ({"min_refusal": 1.5}, "min_refusal"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_settings_that_do_not_fit_are_refused(config, message):
    with pytest.raises(PlanError, match=message):
        configure("refusal-rate", config)


def test_the_record_can_recreate_the_settings():
    settings = RefusalRate(refusal_patterns=("no",), temperature=0.5)
    assert configure("refusal-rate", settings.model_dump(mode="json")) == settings

"""The shipped data sets are matched as their README says, so that nothing but the request tells the classes apart."""

import subprocess
import sys
from collections import defaultdict
from importlib import resources

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from auditgap.data import SPLITS, load, shipped
from auditgap.stats import auroc

README = resources.files("auditgap.data").joinpath("shipped", "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def data():
    return load("shipped:harmful-harmless", "contrast")


def members(data):
    by_group = defaultdict(dict)
    for row in data.rows:
        by_group[row.group][row.label] = row.prompt
    return by_group.values()


def words(prompt):
    return prompt.split()


def word_baseline(data, split, *, part):
    """Held-out AUROC of a logistic regression on word counts of `part` of the prompt, fitted on train."""
    vectorizer = CountVectorizer(token_pattern=r"[^\s.,?!\"]+")
    train, held_out = data.split("train"), data.split(split)
    features = vectorizer.fit_transform([part(prompt) for prompt in train.prompts])
    model = LogisticRegression().fit(features, train.labels)
    return auroc(model.decision_function(vectorizer.transform([part(p) for p in held_out.prompts])), held_out.labels)


def test_every_group_is_one_pair_of_one_form(data):
    assert len(members(data)) == len(data.rows) / 2
    for pair in members(data):
        assert set(pair) == {0, 1}
        harmless, harmful = words(pair[0]), words(pair[1])
        assert abs(len(harmless) - len(harmful)) <= 1, pair
        assert harmless[0] == harmful[0], pair
        assert pair[0][-1] == pair[1][-1], pair
        assert len(set(harmless) & set(harmful)) / len(set(harmful)) >= 0.25, pair


def test_the_splits_are_as_stated(data):
    assert data.classes == ("harmless", "harmful")
    assert [len(set(data.split(split).groups)) for split in SPLITS] == [56, 28, 28, 32]
    data.require_classes(*SPLITS, min_groups=24)


def test_no_prompt_is_used_twice_not_even_across_the_sets(data):
    prompts = [*data.prompts, *load("shipped:ordinary", "prompts").prompts]
    assert len({" ".join(words(p)).casefold() for p in prompts}) == len(prompts)


@pytest.mark.parametrize("split", SPLITS)
def test_length_does_not_tell_the_classes_apart(data, split):
    part = data.split(split)
    for length in (len, lambda prompt: len(words(prompt))):
        assert auroc([length(prompt) for prompt in part.prompts], part.labels) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("split", ["test", "ood"])
def test_first_and_last_words_do_not_tell_the_classes_apart_and_vocabulary_does_as_stated(data, split):
    assert word_baseline(data, split, part=lambda p: words(p)[0]) == 0.5
    assert word_baseline(data, split, part=lambda p: words(p)[-1]) == pytest.approx(0.5, abs=0.1)
    stated = {"test": 0.67, "ood": 0.69}[split]  # README.md; scikit-learn 1.9.1
    assert f"{stated} on `{split}`" in README
    assert word_baseline(data, split, part=str) == pytest.approx(stated, abs=0.02)


def test_ood_is_another_style(data):
    first = {split: {words(p)[0] for p in data.split(split).prompts} for split in SPLITS}
    assert not first["ood"] & first["train"]


def test_no_more_than_one_plain_sentence(data):
    assert max(len(words(prompt)) for prompt in data.prompts) <= 16
    assert all("\n" not in prompt for prompt in data.prompts)


def test_ordinary_prompts_are_many_and_mixed():
    prompts = load("shipped:ordinary", "prompts").prompts
    assert len(prompts) >= 64
    endings = [str(prompt)[-1] for prompt in prompts]
    assert min(endings.count("."), endings.count("?"), sum(ending.isalpha() for ending in endings)) >= 8


def test_the_licence_is_stated():
    assert "CC0-1.0" in README and "Original text" in README
    assert all(f"`{name}`" in README for name in shipped())
    assert shipped() == ["defection-control", "defection-pairs", "harmful-harmless", "ordinary"]


def test_reading_data_needs_no_torch():
    code = """import sys, auditgap.data, auditgap.stats
auditgap.data.load("shipped:ordinary", "prompts")
sys.exit("torch" in sys.modules)"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

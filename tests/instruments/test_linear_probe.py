"""linear-probe: what a linear read-out finds on held-out groups, and what it is held against."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from auditgap.data import ContrastRow, ContrastSet, PairSet, load
from auditgap.errors import CannotMeasure, PlanError, UsageError
from auditgap.instruments.contract import configure
from auditgap.instruments.mechanistic import linear_probe
from auditgap.instruments.mechanistic.linear_probe import LinearProbe, judge
from auditgap.instruments.probing.controls import no_leakage, search_null, text_features
from auditgap.instruments.probing.probe import (
    Fold,
    fit_logistic,
    fit_mean_difference,
    group_labels,
    probe_directions,
    random_direction_aurocs,
    search,
)
from auditgap.models import open_model
from auditgap.records import Interval, Measured, NotMeasured
from auditgap.stats import auroc

NAMES = Path(__file__).parents[2] / "examples" / "data" / "names-contrast.jsonl"
FAST = LinearProbe(n_resamples=200, n_permutations=19)
SIZES = {"train": 20, "val": 12, "test": 24, "ood": 12}  # groups of each class


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Many small matrix products: threads that wait for each other cost more than they bring."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def model(stories):
    return open_model(stories)


def babble(label: int, rng: np.random.Generator) -> str:
    """Words that say nothing of the label."""
    return "".join(rng.choice(list("abcdefgh "), 24))


def planted(seed: int, *, shift: float, d: int = 32, n_layers: int = 4, at: int = 2, group_spread: float = 0.0, text=babble):
    """Folds of Gaussian activations, two rows a group, in which the label moves layer `at` along one direction."""
    rng = np.random.default_rng(seed)
    direction = rng.standard_normal(d)
    direction *= shift / np.linalg.norm(direction)
    folds = {}
    for split, size in SIZES.items():
        labels = np.repeat(np.arange(2 * size) % 2, 2)
        groups = [f"{split}-{i}" for i in range(2 * size) for _ in range(2)]
        x = group_spread * np.repeat(rng.standard_normal((n_layers, 2 * size, d)), 2, axis=1)
        x += rng.standard_normal(x.shape)
        x[at] += labels[:, None] * direction
        folds[split] = Fold(x.astype(np.float32), labels, groups, [text(label, rng) for label in labels])
    return folds


def evaluate(folds, probe=FAST, seed=0):
    return probe.evaluate(folds, layers=range(len(folds["train"].features)), classes=("off", "on"), seed=seed)


def measured(result, name) -> Measured:
    found = result.measurement(name)
    assert isinstance(found, Measured)
    return found


def control(result, name):
    return next(control for control in result.controls if control.name == name)


# Planted truth found


@pytest.mark.parametrize("method", ["logistic", "difference-in-means"])
def test_a_planted_direction_is_found_where_it_was_planted(method):
    result = evaluate(planted(0, shift=5.0), FAST.model_copy(update={"method": method}))
    assert result.verdict == "supported"
    assert measured(result, "layer").value == 2
    assert measured(result, "auroc").interval.low > 0.9
    assert control(result, "shuffled-label-null").observed.value == 1 / 20
    assert all(c.passed for c in result.controls)
    assert set(result.properties) == {"held-out", "search-null", "random-baseline", "control-task", "out-of-distribution"}
    assert len(result.samples) == 6
    assert result.flip_rate is not None
    assert result.flip_rate.value == 0


def test_names_of_girls_and_boys_are_told_apart_in_a_real_model(model):
    data = load(str(NAMES), "contrast")
    result = LinearProbe(min_auroc=0.6).measure(model, data, seed=0)
    assert measured(result, "auroc").interval.low > 0.5
    assert measured(result, "layer").value == 4
    assert control(result, "shuffled-label-null").passed
    assert control(result, "text-only").passed, "names that no split shares give the text nothing to go by"
    assert control(result, "no-leakage").passed
    assert "for girl against boy at resid_post.4" in result.summary


def test_the_example_data_leak_neither_names_nor_templates():
    parts = {}
    for row in load(str(NAMES), "contrast").rows:
        name, template = parts.setdefault(row.split, (set(), set()))
        name.add(row.group)
        template.add(row.prompt.replace(row.group, "NAME"))
    assert len(parts) == 4
    for kind in (0, 1):
        held = [part[kind] for part in parts.values()]
        assert len(set.union(*held)) == sum(len(items) for items in held)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (40, 200)])
def test_logistic_fits_agree_with_scikit_learn(n, d):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d)) + 0.7
    labels = np.stack([(x[:, 0] + rng.standard_normal(n) > 0.7).astype(int), rng.permutation(np.arange(n) < n // 4).astype(int)])
    weights, biases = fit_logistic(x, labels, strengths=[1e-3, 1e-1, 1.0])
    for i, c in enumerate([1e-3, 1e-1, 1.0]):
        for k, y in enumerate(labels):
            peer = LogisticRegression(C=c, tol=1e-10, max_iter=10_000).fit(x, y)
            assert weights[i, k] == pytest.approx(peer.coef_[0], abs=2e-4 * np.abs(peer.coef_).max())
            assert biases[i, k] == pytest.approx(peer.intercept_[0], abs=1e-3)


def test_mean_differences_are_differences_of_means():
    x, y = np.random.default_rng(0).standard_normal((20, 5)), np.arange(20) % 2
    weights, bias = fit_mean_difference(x, y[None])
    assert weights[0] == pytest.approx(x[y == 1].mean(0) - x[y == 0].mean(0))
    assert (x[y == 1].mean(0) + x[y == 0].mean(0)) / 2 @ weights[0] + bias[0] == pytest.approx(0)


# Negative control silent


@pytest.mark.parametrize("d", [16, 256, 4096])
@pytest.mark.parametrize("method", ["logistic", "difference-in-means"])
def test_pure_noise_is_at_chance_on_held_out_rows_whatever_the_width(d, method):
    """A probe scored on its own training rows of noise reads AUROC 0.62 / 0.86 / 1.00 at these widths."""
    folds = planted(d, shift=0.0, d=d, n_layers=2, at=1)
    result = evaluate(folds, FAST.model_copy(update={"method": method}))
    area = measured(result, "auroc").interval
    assert area.low <= 0.5 <= area.high
    assert result.verdict != "supported"
    if d == 4096:
        found = search(folds["train"], folds["val"], method=method)
        assert auroc(found.probe.scores(folds["train"].features), folds["train"].labels) > 0.99


def test_the_search_null_is_uniform_where_nothing_is_planted():
    p = [evaluate_p(seed) for seed in range(80)]
    assert np.mean(np.array(p) <= 0.1) <= 0.2
    assert np.mean(p) == pytest.approx(0.5, abs=0.1)


def evaluate_p(seed: int) -> float:
    folds = planted(seed, shift=0.0, d=16, n_layers=3)
    found = search(folds["train"], folds["val"], method="difference-in-means", n_permutations=39, seed=seed)
    return search_null(found).observed.value


def test_a_label_that_the_words_give_away_is_flagged():
    folds = planted(
        0, shift=5.0, text=lambda label, rng: ("please steal the car", "please wash the car")[label] + str(rng.integers(100))
    )
    result = evaluate(folds)
    assert not control(result, "text-only").passed
    assert control(result, "text-only").observed.value > 0.95
    assert "does not beat a classifier of the text alone" in result.summary


def test_a_label_in_every_direction_needs_no_probe():
    """Where any random direction reads the label, that a fitted one does is no finding."""
    folds = planted(0, shift=0.0)
    for fold in folds.values():
        fold.features[:] += 40 * fold.labels[:, None]
    result = evaluate(folds)
    assert not control(result, "random-direction").passed
    assert "random-baseline" not in result.properties


def test_random_directions_are_at_chance_on_noise():
    folds = planted(3, shift=0.0)
    areas = random_direction_aurocs(folds["train"], folds["val"], folds["test"], n_per_layer=4, n_draws=99, seed=0)
    assert areas.mean() == pytest.approx(0.5, abs=0.03)


def test_memorising_groups_shows_in_the_control_task_and_not_in_the_result():
    result = evaluate(planted(0, shift=0.0, d=512, group_spread=5.0))
    assert measured(result, "control_accuracy.seen_groups").value > 0.9
    assert not control(result, "control-task").passed
    assert result.verdict != "supported"


def test_rows_shared_between_splits_make_the_result_invalid():
    folds = planted(0, shift=5.0)
    leaking = folds["test"]._replace(groups=[folds["train"].groups[0], *folds["test"].groups[1:]])
    result = evaluate({**folds, "test": leaking})
    assert result.verdict == "invalid"
    assert "held-out" not in result.properties
    copied = folds["test"]._replace(texts=[folds["train"].texts[0], *folds["test"].texts[1:]])
    assert no_leakage(folds).passed
    assert no_leakage({**folds, "test": copied}).observed.value == 1


# Invariance


def test_scale_and_offset_of_the_features_do_not_matter():
    folds, rng = planted(1, shift=1.5), np.random.default_rng(0)
    scale, offset = np.exp(rng.standard_normal(32)), 10 * rng.standard_normal(32)
    moved = {split: fold._replace(features=fold.features * scale + offset) for split, fold in folds.items()}
    one, other = (search(f["train"], f["val"]).probe for f in (folds, moved))
    assert (one.layer, one.strength) == (other.layer, other.strength)
    assert one.scores(folds["test"].features) == pytest.approx(other.scores(moved["test"].features), abs=1e-3)


def test_the_names_of_the_classes_do_not_matter():
    folds = planted(1, shift=1.5)
    exchanged = {split: fold._replace(labels=1 - fold.labels) for split, fold in folds.items()}
    one, other = (search(f["train"], f["val"]).probe for f in (folds, exchanged))
    assert one.scores(folds["test"].features) == pytest.approx(-other.scores(folds["test"].features), abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_the_order_of_rows_does_not_matter_to_a_fit(seed):
    rng = np.random.default_rng(seed)
    x, y, order = rng.standard_normal((24, 40)), np.arange(24) % 2, rng.permutation(24)
    for method in ("logistic", "difference-in-means"):
        one, _ = probe_directions(x, y[None], method=method, strengths=[0.01])
        other, _ = probe_directions(x[order], y[order][None], method=method, strengths=[0.01])
        assert one == pytest.approx(other, abs=1e-5)


def test_fitting_labellings_together_or_alone_gives_the_same():
    rng = np.random.default_rng(0)
    x, labels = rng.standard_normal((30, 50)), np.stack([rng.permutation(np.arange(30) % 2) for _ in range(20)])
    together, _ = fit_logistic(x, labels, strengths=[0.01])
    alone = np.stack([fit_logistic(x, y[None], strengths=[0.01])[0][:, 0] for y in labels], axis=1)
    assert together == pytest.approx(alone, abs=1e-5 * np.abs(alone).max())


def test_control_labels_are_fixed_within_groups_and_balanced():
    groups = [f"g{i // 3}" for i in range(30)]
    labels = group_labels(groups, n_labellings=50, rng=np.random.default_rng(0)).reshape(50, 10, 3)
    assert (labels == labels[:, :, :1]).all()
    assert (labels[:, :, 0].sum(axis=1) == 5).all()


def test_the_vocabulary_comes_from_train_alone():
    train = ["a red ball", "a blue car"]
    alone, _ = text_features(train, ["unseen words everywhere"])
    again, _ = text_features(train, ["a red car"])
    assert (alone == again).all()


def test_the_same_seed_gives_the_same_record():
    assert evaluate(planted(0, shift=1.0), seed=4) == evaluate(planted(0, shift=1.0), seed=4)


@pytest.mark.parametrize(
    ("low", "high", "p", "verdict"),
    [
        (0.8, 0.9, 0.01, "supported"),
        (0.8, 0.9, 0.2, "inconclusive"),
        (0.6, 0.9, 0.01, "inconclusive"),
        (0.4, 0.7, 0.01, "refuted"),
    ],
)
def test_the_verdict_follows_interval_and_null(low, high, p, verdict):
    assert judge(Interval(low=low, high=high, level=0.95, method="given"), p=p, min_auroc=0.75) == verdict


# Bad input refused


def test_rates_that_few_negatives_cannot_support_are_not_measured():
    result = evaluate(planted(0, shift=5.0))
    assert measured(result, "tpr_at_fpr.0.05").value > 0.5
    strict = result.measurement("tpr_at_fpr.0.01")
    assert isinstance(strict, NotMeasured)
    assert "24 groups of negatives, a threshold at 1% takes 100" in strict.reason


def test_without_an_ood_split_there_is_no_ood_number():
    folds = planted(0, shift=5.0)
    empty = Fold(folds["ood"].features[:, :0], folds["ood"].labels[:0], [], [])
    result = evaluate({**folds, "ood": empty})
    assert isinstance(result.measurement("auroc.ood"), NotMeasured)
    assert "out-of-distribution" not in result.properties
    assert result.verdict == "supported"


def contrast(sizes) -> ContrastSet:
    rows = tuple(
        ContrastRow(prompt=f"{split} {label} {i}", label=label, group=f"{split} {label} {i}", split=split)
        for split, size in sizes.items()
        for label in (0, 1)
        for i in range(size)
    )
    return ContrastSet(name="c", source="here", rows=rows, classes=("off", "on"))


def test_too_few_groups_are_refused(model):
    with pytest.raises(CannotMeasure, match="val has 3 of 'off', val has 3 of 'on'"):
        LinearProbe().measure(model, contrast({"train": 4, "val": 3, "test": 4}), seed=0)


def test_activations_that_are_not_finite_are_refused(model, monkeypatch):
    def broken(model, prompts, sites, **settings):
        return {name: torch.full((len(prompts), 64), torch.nan) for name in sites}

    monkeypatch.setattr(linear_probe, "capture", broken)
    with pytest.raises(CannotMeasure, match=r"resid_post\.0: expected finite"):
        LinearProbe().measure(model, contrast({"train": 4, "val": 4, "test": 4}), seed=0)


def test_a_layer_that_is_not_there_is_refused(model):
    with pytest.raises(UsageError, match="7"):
        LinearProbe(layers=(1, 7)).measure(model, contrast({"train": 4, "val": 4, "test": 4}), seed=0)


def test_other_data_are_refused(model):
    with pytest.raises(UsageError, match="reads a contrast set, got a PairSet"):
        LinearProbe().measure(model, PairSet(name="p", source="here", rows=()), seed=0)


@pytest.mark.parametrize(
    "config", [{"layers": []}, {"min_auroc": 0.4}, {"n_permutations": 5}, {"method": "svm"}, {"strengths": [0.0]}]
)
def test_settings_that_do_not_fit_are_refused(config):
    with pytest.raises(PlanError, match=next(iter(config))):
        configure("linear-probe", config)

"""linear-probe: what a linear read-out finds on held-out groups, and what it is held against."""

from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from auditgap.data import ContrastRow, ContrastSet, PairSet, load
from auditgap.errors import CannotMeasure, PlanError, UsageError
from auditgap.instruments.contract import configure
from auditgap.instruments.mechanistic.linear_probe import LinearProbe, reading
from auditgap.instruments.mechanistic.linear_probe.results import judge
from auditgap.instruments.mechanistic.linear_probe.transfer import transfer
from auditgap.instruments.probing import attention
from auditgap.instruments.probing.baselines import text_features
from auditgap.instruments.probing.controls import no_leakage, search_null
from auditgap.instruments.probing.probe import Fold, group_labels, random_direction_aurocs, search
from auditgap.instruments.probing.tokens import Tokens
from auditgap.models import open_model
from auditgap.records import Interval, Measured, NotMeasured
from auditgap.stats import auroc

NAMES = Path(__file__).parents[2] / "examples" / "data" / "names-contrast.jsonl"
FAST = LinearProbe(n_resamples=200, n_permutations=19)
METHODS = ("logistic", "difference-in-means", "lda", "attention-pooled")
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


def with_tokens(folds, seed=0):
    """The same folds with the vector of each prompt spread over four tokens, of which it is the mean."""
    spread = {}
    for split, fold in folds.items():
        rng = np.random.default_rng([seed, len(fold.labels)])
        n_layers, n, d = fold.features.shape
        noise = rng.standard_normal((n_layers, n, 4, d))
        values = (fold.features[:, :, None] + noise - noise.mean(axis=2, keepdims=True)).astype(np.float32)
        tokens = [Tokens(place, np.full(n, 4), np.arange(n)) for place in values]
        spread[split] = fold._replace(tokens=tokens)
    return spread


def evaluate(folds, probe=FAST, seed=0, rivals=None):
    n_layers = len(folds["train"].features) // len(probe.positions)
    return probe.evaluate(folds, layers=range(n_layers), classes=("off", "on"), rivals=rivals or {}, seed=seed)


def by(method, **update):
    return FAST.model_copy(update={"method": method, **update})


def joined(*names):
    """One set of each name; `c` holds the label along a direction of its own."""
    parts = [planted(3 if name == "c" else 0, shift=5.0, n_layers=1, at=0) for name in names]
    rng = np.random.default_rng(9)
    return {
        split: Fold(
            np.concatenate([p[split].features + 0.1 * rng.standard_normal(p[split].features.shape) for p in parts], axis=1),
            np.concatenate([p[split].labels for p in parts]),
            [f"{name}/{group}" for name, p in zip(names, parts, strict=True) for group in p[split].groups],
            [text for p in parts for text in p[split].texts],
            datasets=[name for name, p in zip(names, parts, strict=True) for _ in p[split].groups],
        )
        for split in SIZES
    }


def measured(result, name) -> Measured:
    found = result.measurement(name)
    assert isinstance(found, Measured)
    return found


def control(result, name):
    return next(control for control in result.controls if control.name == name)


# Planted truth found


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_direction_is_found_where_it_was_planted(method):
    folds = planted(0, shift=5.0)
    result = evaluate(with_tokens(folds), by(method, strengths=(1e-2,))) if "pooled" in method else evaluate(folds, by(method))
    assert result.verdict == "supported"
    assert measured(result, "layer").value == 2
    assert measured(result, "auroc").interval.low > 0.9
    assert control(result, "shuffled-label-null").observed.value == 1 / 20
    assert all(c.passed for c in result.controls)
    assert set(result.properties) == {"held-out", "search-null", "random-baseline", "control-task", "out-of-distribution"}
    assert len(result.samples) == 6
    assert result.flip_rate is not None
    assert result.flip_rate.value == 0


def test_a_position_is_found_among_several():
    """Two positions of three layers; the label sits at the second position of layer 1, index 4 of the places."""
    probe = FAST.model_copy(update={"position": ("last", "-3:")})
    result = evaluate(planted(0, shift=5.0, n_layers=6, at=4), probe)
    assert measured(result, "layer").value == 1
    assert "at resid_post.1 (position -3:) reaches" in result.summary
    grid = next(figure for figure in result.figures if figure.name == "search")
    assert (grid.rows, grid.columns) == (("last", "-3:"), ("0", "1", "2"))
    assert max(max(row) for row in grid.values) == grid.values[1][1]
    sweep = next(figure for figure in result.figures if figure.name == "layer-sweep")
    assert sweep.y == grid.values[1]


def test_the_null_covers_every_place_that_is_searched():
    """A wider search finds more by chance, and its null says so."""
    folds = planted(0, shift=0.0, n_layers=12)
    narrow = {split: fold._replace(features=fold.features[:2]) for split, fold in folds.items()}
    wide, few = (search(f["train"], f["val"], n_permutations=40, seed=0) for f in (folds, narrow))
    assert wide.null_maxima.mean() > few.null_maxima.mean() + 0.03


def test_separate_rows_get_delongs_interval():
    single = {split: fold.take(np.arange(0, len(fold.labels), 2)) for split, fold in planted(0, shift=2.0).items()}
    result = evaluate(single)
    area = measured(result, "auroc.delong")
    assert area.interval.method == "delong"
    assert area.value == measured(result, "auroc").value
    assert isinstance(evaluate(planted(0, shift=2.0)).measurement("auroc.delong"), NotMeasured)


@pytest.mark.parametrize("config", [{"method": "attention-pooled"}, {"position": "every"}, {"position": ("mean", -2, "1:")}])
def test_every_way_of_reading_runs_on_a_real_model(model, config, monkeypatch):
    monkeypatch.setattr(attention, "N_STEPS", 20)
    probe = LinearProbe(layers=(4,), strengths=(1e-2,), n_permutations=19, n_resamples=200, **config)
    result = probe.measure(model, load(str(NAMES), "contrast"), seed=0)
    assert {c.name for c in result.controls} == set(probe.card.controls)
    assert 0.5 < measured(result, "auroc").value < 1
    assert all(isinstance(control(result, name).observed, Measured) for name in ("untrained-model", "random-features"))
    reliability = next(figure for figure in result.figures if figure.name == "reliability")
    assert reliability.reference == reliability.x
    assert len(reliability.x) == 10


def test_names_of_girls_and_boys_are_told_apart_in_a_real_model(model):
    data = load(str(NAMES), "contrast")
    result = LinearProbe(min_auroc=0.6, n_permutations=39, n_resamples=400).measure(model, data, seed=0)
    assert measured(result, "auroc").interval.low > 0.5
    assert measured(result, "layer").value == 4
    assert control(result, "shuffled-label-null").passed
    assert control(result, "text-only").passed, "names that no split shares give the text nothing to go by"
    assert control(result, "no-leakage").passed
    assert control(result, "untrained-model").passed
    assert "for girl against boy at resid_post.4 reaches" in result.summary


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


# Negative control silent


@pytest.mark.parametrize("d", [16, 256, 4096])
@pytest.mark.parametrize("method", ["logistic", "difference-in-means", "lda"])
def test_pure_noise_is_at_chance_on_held_out_rows_whatever_the_width(d, method):
    """A probe scored on its own training rows of noise reads AUROC 0.62 / 0.86 / 1.00 at these widths."""
    folds = planted(d, shift=0.0, d=d, n_layers=2, at=1)
    result = evaluate(folds, by(method))
    area = measured(result, "auroc").interval
    assert area.low <= 0.5 <= area.high
    assert result.verdict != "supported"
    if d == 4096:
        found = search(folds["train"], folds["val"], method=method)
        assert auroc(found.probe.scores(folds["train"]), folds["train"].labels) > 0.99


def test_pure_noise_is_at_chance_for_attention_too():
    folds = with_tokens(planted(5, shift=0.0, d=64, n_layers=2, at=1))
    result = evaluate(folds, by("attention-pooled", strengths=(1e-2,)))
    area = measured(result, "auroc").interval
    assert area.low <= 0.5 <= area.high
    assert result.verdict != "supported"
    found = search(folds["train"], folds["val"], method="attention-pooled", strengths=(1e-2,))
    assert auroc(found.probe.scores(folds["train"]), folds["train"].labels) > 0.9


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


@pytest.mark.parametrize(
    ("name", "words"), [("untrained-model", "the untrained model"), ("random-features", "random features of the tokens")]
)
def test_a_label_that_needs_no_training_is_flagged(name, words):
    folds = planted(0, shift=3.0)
    other = "random-features" if name == "untrained-model" else "untrained-model"
    result = evaluate(folds, rivals={name: planted(1, shift=3.0), other: planted(1, shift=0.0)})
    assert control(result, other).passed
    assert "it beats a classifier of the text alone (" in result.summary
    assert not control(result, name).passed
    assert control(result, name).observed.value > 0.9
    said = f"{words} ({control(result, name).observed.value:.2f})"
    assert f"it does not beat {said}, so it may show nothing that the model has learned" in result.summary
    assert result.verdict == "supported", "it bounds what may be concluded, and is no verdict"


def test_probabilities_of_noise_are_no_better_than_the_base_rate():
    result = evaluate(planted(7, shift=0.0))
    assert measured(result, "brier").interval.high >= 0.25
    clear = evaluate(planted(0, shift=5.0))
    assert measured(clear, "brier").interval.high < 0.1


def test_what_holds_on_one_data_set_alone_does_not_carry_over():
    """`a` and `b` hold the label along one direction, `c` along another."""
    carried = transfer(joined("a", "b", "c"), method="logistic", strengths=[0.01], n_resamples=200, seed=0)
    areas = {m.name: m for m in carried.measurements}
    assert areas["auroc.left_out.a"].interval.low > 0.8
    assert areas["auroc.left_out.b"].interval.low > 0.8
    assert areas["auroc.left_out.c"].interval.low < 0.6
    matrix, low, high = carried.grids
    assert (matrix.rows, matrix.columns) == (("a", "b", "c"),) * 2
    values = np.array(matrix.values)
    assert (values[:2, :2] > 0.9).all() and values[2, 2] > 0.9
    assert (values[:2, 2] < 0.75).all() and (values[2, :2] < 0.75).all()
    assert (np.array(low.values) <= values).all() and (values <= np.array(high.values)).all()


def test_a_data_set_too_small_to_fit_is_scored_only():
    folds = joined("a", "b")
    few = [i for i, name in enumerate(folds["train"].datasets) if name != "b"]
    carried = transfer(
        {**folds, "train": folds["train"].take(np.array(few))}, method="lda", strengths=[1.0], n_resamples=200, seed=0
    )
    assert carried.grids[0].rows == ("a",)
    assert carried.grids[0].columns == ("a", "b")
    without_a, without_b = carried.measurements
    assert isinstance(without_a, NotMeasured) and "fewer than 4 groups" in without_a.reason
    assert isinstance(without_b, Measured)


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
    assert one.scores(folds["test"]) == pytest.approx(other.scores(moved["test"]), abs=1e-3)


def test_the_names_of_the_classes_do_not_matter():
    folds = planted(1, shift=1.5)
    exchanged = {split: fold._replace(labels=1 - fold.labels) for split, fold in folds.items()}
    one, other = (search(f["train"], f["val"]).probe for f in (folds, exchanged))
    assert one.scores(folds["test"]) == pytest.approx(-other.scores(folds["test"]), abs=1e-3)


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


@pytest.fixture(scope="module")
def quick():
    return LinearProbe(layers=(4,), strengths=(1e-2,), n_permutations=19, n_resamples=200)


def test_the_order_of_rows_does_not_matter(model, quick):
    """The digest of a set does not depend on it, so the record may not either."""
    data = load(str(NAMES), "contrast")
    order = np.random.default_rng(0).permutation(len(data.rows))
    shuffled = data.model_copy(update={"rows": tuple(data.rows[i] for i in order)})
    assert shuffled.ref() == data.ref()
    assert quick.measure(model, shuffled, seed=0) == quick.measure(model, data, seed=0)


def test_the_size_of_batches_moves_no_number_by_more_than_a_rank(model, quick):
    data = load(str(NAMES), "contrast")
    one, other = (quick.model_copy(update={"batch_size": n}).measure(model, data, seed=0) for n in (32, 5))
    assert one.verdict == other.verdict
    for a, b in zip(one.measurements, other.measurements, strict=True):
        assert a.name == b.name
        if isinstance(a, Measured):
            assert b.value == pytest.approx(a.value, abs=2e-3), a.name
            assert b.interval.low == pytest.approx(a.interval.low, abs=5e-3), a.name


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


def test_data_that_name_no_data_sets_carry_nothing_over():
    result = evaluate(planted(0, shift=5.0))
    nothing = result.measurement("auroc.left_out")
    assert isinstance(nothing, NotMeasured)
    assert "name 0 data sets, two are needed" in nothing.reason
    assert not any(figure.name.startswith("transfer") for figure in result.figures)


def test_names_that_would_fall_together_are_refused():
    folds = joined("a", "A!")
    with pytest.raises(UsageError, match="differ in letters or digits"):
        transfer(folds, method="lda", strengths=[1.0], n_resamples=200, seed=0)


def test_a_model_too_large_to_build_again_says_so(model):
    probe = LinearProbe(layers=(4,), n_permutations=19, n_resamples=200, max_untrained_parameters=1000)
    result = probe.measure(model, load(str(NAMES), "contrast"), seed=0)
    fresh = control(result, "untrained-model")
    assert not fresh.passed
    assert fresh.observed.reason == "260032 parameters, at most 1000 are built again: max_untrained_parameters"
    assert "untrained" not in result.summary


def test_a_span_that_a_prompt_does_not_have_is_refused(model):
    with pytest.raises(UsageError, match=r"tokens -40: asked, prompt \d+ has"):
        LinearProbe(position="-40:").measure(model, load(str(NAMES), "contrast"), seed=0)


def test_too_few_groups_are_refused(model):
    with pytest.raises(CannotMeasure, match="val has 3 of 'off', val has 3 of 'on'"):
        LinearProbe().measure(model, contrast({"train": 4, "val": 3, "test": 4}), seed=0)


def test_activations_that_are_not_finite_are_refused(model, monkeypatch):
    def broken(model, prompts, sites, **settings):
        return {name: torch.full((len(prompts), 64), torch.nan) for name in sites}

    monkeypatch.setattr(reading, "capture", broken)
    with pytest.raises(CannotMeasure, match=r"resid_post\.0: expected finite"):
        LinearProbe().measure(model, contrast({"train": 4, "val": 4, "test": 4}), seed=0)


def test_a_layer_that_is_not_there_is_refused(model):
    with pytest.raises(UsageError, match="7"):
        LinearProbe(layers=(1, 7)).measure(model, contrast({"train": 4, "val": 4, "test": 4}), seed=0)


def test_other_data_are_refused(model):
    with pytest.raises(UsageError, match="reads a contrast set, got a PairSet"):
        LinearProbe().measure(model, PairSet(name="p", source="here", rows=()), seed=0)


@pytest.mark.parametrize(
    "config",
    [
        {"layers": []},
        {"min_auroc": 0.4},
        {"n_permutations": 5},
        {"method": "svm"},
        {"strengths": [0.0]},
        {"position": "first"},
        {"position": "1:2:3"},
        {"position": []},
        {"position": ["last", "every"]},
        {"position": "last", "method": "attention-pooled"},
        {"max_untrained_parameters": -1},
    ],
)
def test_settings_that_do_not_fit_are_refused(config):
    with pytest.raises(PlanError, match=next(iter(config))):
        configure("linear-probe", config)

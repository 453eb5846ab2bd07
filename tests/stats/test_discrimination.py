"""AUROC, ROC and thresholds: against scikit-learn and Mann-Whitney, and intervals that keep their doubt."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm
from sklearn.metrics import roc_auc_score, roc_curve

from auditgap.errors import UsageError
from auditgap.stats import auroc, auroc_interval, cluster_bootstrap, roc, threshold_at_fpr, tpr_at_fpr

# Few distinct values, so that ties are common.
score = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6))
samples = st.tuples(st.lists(score, min_size=1, max_size=40), st.lists(score, min_size=1, max_size=40)).map(
    lambda parts: (np.array(parts[0] + parts[1]), np.array([1] * len(parts[0]) + [0] * len(parts[1])))
)


@given(samples)
def test_auroc_is_scikit_learns_and_mann_whitneys(sample):
    scores, labels = sample
    u = mannwhitneyu(scores[labels == 1], scores[labels == 0], method="asymptotic").statistic if len(set(scores)) > 1 else None
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    if u is not None:
        assert auroc(scores, labels) == pytest.approx(u / (labels.sum() * (1 - labels).sum()), abs=1e-12)


@given(samples)
def test_roc_is_scikit_learns_and_encloses_the_auroc(sample):
    scores, labels = sample
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    curve = roc(scores, labels)
    np.testing.assert_allclose(curve.fpr, fpr, atol=1e-12)
    np.testing.assert_allclose(curve.tpr, tpr, atol=1e-12)
    assert np.trapezoid(curve.tpr, curve.fpr) == pytest.approx(auroc(scores, labels), abs=1e-12)


@given(samples, st.randoms(use_true_random=False))
def test_auroc_ignores_order_and_scale_and_mirrors_with_the_sign(sample, random):
    scores, labels = sample
    order = list(range(len(scores)))
    random.shuffle(order)
    ranks = np.unique(scores, return_inverse=True)[1]
    assert auroc(scores[order], labels[order]) == auroc(scores, labels)
    assert auroc(np.exp(ranks), labels) == auroc(scores, labels)
    assert auroc(-scores, labels) == pytest.approx(1 - auroc(scores, labels), abs=1e-12)


@given(samples, st.floats(0, 1))
def test_tpr_at_fpr_is_the_best_point_of_the_curve_within_the_limit(sample, max_fpr):
    scores, labels = sample
    fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
    assert tpr_at_fpr(scores, labels, max_fpr=max_fpr) == pytest.approx(tpr[fpr <= max_fpr + 1e-9].max(), abs=1e-12)
    negatives = scores[labels == 0]
    assert np.mean(negatives > threshold_at_fpr(negatives, max_fpr=max_fpr)) <= max_fpr + 1e-9


def test_tpr_at_fpr_by_hand():
    scores, labels = [5, 4, 3, 2, 4, 3, 2, 1], [1, 1, 1, 1, 0, 0, 0, 0]
    assert tpr_at_fpr(scores, labels, max_fpr=0.0) == 0.25  # above 4: only the 5
    assert tpr_at_fpr(scores, labels, max_fpr=0.24) == 0.25  # a quarter of four negatives is one; less allows none
    assert tpr_at_fpr(scores, labels, max_fpr=0.25) == 0.5
    assert tpr_at_fpr(scores, labels, max_fpr=1.0) == 1.0
    assert threshold_at_fpr(np.arange(100), max_fpr=0.29) == 70.0  # 29 negatives lie above, though 0.29 * 100 < 29 in floats
    assert threshold_at_fpr([1.0, 1.0], max_fpr=0.5) == 1.0
    assert threshold_at_fpr([1.0], max_fpr=1.0) == -math.inf


def test_a_perfect_score_on_few_groups_keeps_its_doubt():
    labels = np.arange(16) % 2
    scores = labels.astype(float)
    bare = cluster_bootstrap(lambda rows: auroc(scores[rows], labels[rows]), range(16), n_resamples=200, seed=0)
    assert (bare.low, bare.high) == (1.0, 1.0)
    few, many = (auroc_interval(np.tile(scores, k), np.tile(labels, k), range(16 * k), n_resamples=200, seed=0) for k in (1, 20))
    assert few.high == many.high == 1.0
    assert 0.7 < few.low < 0.8 < 0.97 < many.low < 1.0
    inverted = auroc_interval(1 - scores, labels, range(16), n_resamples=200, seed=0)
    assert (inverted.low, inverted.high) == pytest.approx((0.0, 1 - few.low), abs=1e-9)


def test_the_score_interval_solves_its_own_equation():
    """Newcombe's ends are where |theta - area| is z Hanley-McNeil standard errors at theta."""
    labels = np.repeat([1, 0], [6, 10])
    interval = auroc_interval(labels.astype(float), labels, range(16), n_resamples=50, seed=0)
    theta, n_mean = interval.low, 7.0
    variance = theta * (1 - theta) * (1 + n_mean * (1 - theta) / (2 - theta) + n_mean * theta / (1 + theta)) / 60
    assert (1 - theta) / math.sqrt(variance) == pytest.approx(1.959963984540054, rel=1e-6)


def test_copies_of_a_row_in_one_group_add_no_certainty():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    scores = rng.normal(size=40) + labels
    once = auroc_interval(scores, labels, range(40), n_resamples=500, seed=1)
    copied = auroc_interval(np.tile(scores, 5), np.tile(labels, 5), np.tile(np.arange(40), 5), n_resamples=500, seed=1)
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high), abs=1e-9)


def test_auroc_interval_covers_where_the_bootstrap_alone_does_not():
    """Twelve groups a class, true AUROC 0.95, 200 seeded repeats: the standard error of a coverage of 0.95 is 0.015."""
    truth, n_repeats = 0.95, 200
    shift = math.sqrt(2) * norm.ppf(truth)
    labels = np.repeat([1, 0], 12)
    rng = np.random.default_rng(7)
    covered = covered_bare = 0
    for repeat in range(n_repeats):
        scores = rng.normal(size=24) + shift * labels
        both = auroc_interval(scores, labels, range(24), n_resamples=200, seed=repeat)
        bare = cluster_bootstrap(
            lambda rows, scores=scores: auroc(scores[rows], labels[rows]), range(24), n_resamples=200, seed=repeat
        )
        covered += both.low <= truth <= both.high
        covered_bare += bare.low <= truth <= bare.high
    assert covered / n_repeats >= 0.93
    assert covered_bare / n_repeats < 0.92


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([], [], "scores: expected at least one number"),
        ([1.0, 2.0], [1, 1], "expected both classes, got only 1 in 2 rows"),
        ([1.0, 2.0], [0, 0], "expected both classes, got only 0"),
        ([1.0, math.nan], [0, 1], "scores: expected numbers, got NaN at position 1"),
        ([1.0, 2.0], [0, 2], r"labels: expected 0 and 1, got \[0, 2\]"),
        ([1.0, 2.0], ["a", "b"], "labels: expected 0 and 1"),
        ([1.0, 2.0], [0, 1, 1], "labels: expected 2, one per row"),
        ([[1.0, 2.0]], [0, 1], r"got shape \(1, 2\)"),
        (["high", "low"], [0, 1], "scores: expected numbers"),
    ],
)
def test_bad_samples_are_refused(scores, labels, message):
    for statistic in (auroc, roc, lambda s, y: tpr_at_fpr(s, y, max_fpr=0.1), lambda s, y: auroc_interval(s, y, s, seed=0)):
        with pytest.raises(UsageError, match=message):
            statistic(scores, labels)


@pytest.mark.parametrize("max_fpr", [-0.1, 1.5, math.nan])
def test_an_impossible_rate_is_refused(max_fpr):
    with pytest.raises(UsageError, match="max_fpr: expected a rate between 0 and 1"):
        tpr_at_fpr([1, 2], [0, 1], max_fpr=max_fpr)


def test_one_group_is_refused():
    with pytest.raises(UsageError, match="at least 2 groups"):
        auroc_interval([1.0, 2.0], [0, 1], ["a", "a"], seed=0)

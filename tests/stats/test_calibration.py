"""Probabilities from scores: Platt's curve against scikit-learn's, errors against hand values, and what chance alone reads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from auditgap.errors import UsageError
from auditgap.stats import brier, equal_mass_bins, expected_calibration_error, fit_platt, perfect_calibration

probabilities = st.lists(st.one_of(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.floats(0, 1)), min_size=1, max_size=60)


def noisy(seed: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3 == 0
    return rng.standard_normal(n) + labels, labels.astype(int)


# Planted truth found


@pytest.mark.parametrize(("scale", "offset"), [(1.0, 0.0), (200.0, 30.0), (1e-3, 0.0)])
def test_platt_is_scikit_learns(scale, offset):
    """CalibratedClassifierCV of scikit-learn 1.9 on a frozen classifier; its gradient tolerance is 1e-6."""
    x, y = noisy(0)
    classifier = LogisticRegression(C=10.0).fit(x[:, None], y)
    scores = classifier.decision_function(x[:, None]) * scale + offset
    mine = fit_platt(scores, y).probabilities(scores)
    peer = CalibratedClassifierCV(FrozenEstimator(classifier), method="sigmoid", cv=2).fit(x[:, None], y)
    ours = fit_platt(classifier.decision_function(x[:, None]), y).probabilities(classifier.decision_function(x[:, None]))
    assert mine == pytest.approx(ours, abs=1e-5), "scale and offset of the scores do not matter"
    assert ours == pytest.approx(peer.predict_proba(x[:, None])[:, 1], abs=1e-4)


def test_platt_finds_the_curve_that_made_the_labels():
    rng = np.random.default_rng(0)
    scores = rng.standard_normal(20_000)
    labels = rng.random(20_000) < 1 / (1 + np.exp(-(1.5 * scores - 0.7)))
    found = fit_platt(scores, labels.astype(int))
    assert (found.slope, found.intercept) == pytest.approx((1.5, -0.7), abs=0.06)


def test_overconfidence_is_seen():
    rng = np.random.default_rng(0)
    p = rng.random(2000)
    labels = (rng.random(2000) < p).astype(int)
    sharp = np.where(p > 0.5, 0.99, 0.01)
    assert expected_calibration_error(sharp, labels) == pytest.approx(0.24, abs=0.03)
    assert expected_calibration_error(sharp, labels) > np.quantile(perfect_calibration(sharp, seed=0), 0.999)


@pytest.mark.parametrize(
    ("p", "labels", "n_bins", "error"),
    [
        ([0.1, 0.9], [0, 1], 2, 0.1),
        ([0.1, 0.3, 0.6, 0.8], [0, 1, 1, 1], 2, (abs(0.4 - 1) + abs(1.4 - 2)) / 4),
        ([0.1, 0.3, 0.6, 0.8], [0, 1, 1, 1], 1, abs(1.8 - 3) / 4),
        ([0.5, 0.5, 0.5, 0.5], [1, 1, 1, 0], 4, 0.25),
    ],
)
def test_the_error_is_what_a_pencil_says(p, labels, n_bins, error):
    assert expected_calibration_error(p, labels, n_bins=n_bins) == pytest.approx(error)


# Negative control silent


def test_true_probabilities_read_what_chance_reads():
    rng = np.random.default_rng(1)
    p = rng.random(300)
    errors = [expected_calibration_error(p, (rng.random(300) < p).astype(int)) for _ in range(200)]
    by_chance = perfect_calibration(p, seed=0)
    assert np.mean(errors) == pytest.approx(by_chance.mean(), abs=0.004)
    assert by_chance.mean() > 0.02, "chance alone keeps it above 0"


def test_classes_that_the_scores_separate_do_not_become_certain():
    found = fit_platt([-1.0, -1.0, 1.0, 1.0], [0, 0, 1, 1])
    assert found.probabilities([-1.0, 1.0]) == pytest.approx([0.25, 0.75], abs=1e-3)  # (2 + 1) / (2 + 2)


# Invariance


@given(probabilities, st.integers(1, 12), st.randoms(use_true_random=False))
def test_order_does_not_matter_and_equal_values_share_a_bin(values, n_bins, random):
    p = np.array(values)
    labels = np.array([random.randint(0, 1) for _ in values])
    order = list(range(len(p)))
    random.shuffle(order)
    bins = equal_mass_bins(p, n_bins=n_bins)
    assert expected_calibration_error(p, labels, n_bins=n_bins) == pytest.approx(
        expected_calibration_error(p[order], labels[order], n_bins=n_bins)
    )
    assert set(bins) == set(range(bins.max() + 1))
    assert bins.max() < n_bins
    for value in set(values):
        assert len(set(bins[p == value])) == 1
    assert (np.diff(bins[np.argsort(p)]) >= 0).all()


@given(st.integers(2, 200), st.integers(1, 12))
def test_bins_of_distinct_values_are_equally_full(n, n_bins):
    counts = np.bincount(equal_mass_bins(np.linspace(0, 1, n), n_bins=n_bins))
    assert counts.max() - counts.min() <= 1


@given(probabilities, st.randoms(use_true_random=False))
def test_brier_is_scikit_learns_and_bounds_the_error(values, random):
    labels = np.array([random.randint(0, 1) for _ in values])
    assert brier(values, labels) == pytest.approx(brier_score_loss(labels, values, labels=[0, 1], pos_label=1), abs=1e-12)
    assert expected_calibration_error(values, labels) ** 2 <= brier(values, labels) + 1e-12


def test_the_same_seed_draws_the_same():
    assert (perfect_calibration([0.2, 0.7], seed=3) == perfect_calibration([0.2, 0.7], seed=3)).all()


# Bad input refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: brier([0.5, 1.5], [0, 1]), "between 0 and 1, got 0.5 to 1.5"),
        (lambda: brier([0.5], [0, 1]), "for each of 1 probabilities"),
        (lambda: brier([0.5], [2]), "labels: expected 0 or 1"),
        (lambda: expected_calibration_error([0.5], [1], n_bins=0), "n_bins: expected at least 1, got 0"),
        (lambda: expected_calibration_error([], []), "expected at least one number"),
        (lambda: perfect_calibration([0.5], n_draws=0, seed=0), "n_draws: expected at least 1, got 0"),
        (lambda: fit_platt([0.1, 0.2], [1, 1]), "expected both classes"),
        (lambda: fit_platt([0.1, np.inf], [0, 1]), "expected finite numbers"),
        (lambda: fit_platt([0.1, np.nan], [0, 1]), "NaN at position 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()

"""The streaming fit against scikit-learn, which solves the same problem."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from auditgap.errors import CannotMeasure, UsageError
from auditgap.stats import auroc, fit_logistic_streaming

WIDTH = 12


def _rows(n: int, *, seed: int, signal: float = 1.0, dtype=np.float64):
    """Features on very different scales and off the origin, with a planted direction."""
    rng = np.random.default_rng(seed)
    plain = rng.standard_normal((n, WIDTH))
    planted = signal * np.linspace(-1, 1, WIDTH)
    labels = (rng.random(n) < 1 / (1 + np.exp(-(plain @ planted + 0.5)))).astype(int)
    return (plain * np.logspace(-2, 2, WIDTH) + 3.0).astype(dtype), labels


@pytest.mark.parametrize("l2", [1e-4, 1e-2, 1.0])
def test_equals_scikit_learn(l2):
    """Peer: scikit-learn 1.9 newton-cholesky, float64. Its objective is the sum of losses times C plus half the squared norm."""
    features, labels = _rows(3000, seed=0)
    ours = fit_logistic_streaming(features, labels, l2=l2, tolerance_nats=1e-15)
    peer = LogisticRegression(C=1 / (l2 * len(labels)), solver="newton-cholesky", tol=1e-12).fit(features, labels)
    np.testing.assert_allclose(ours.weights, peer.coef_[0], rtol=1e-4, atol=1e-7)
    assert ours.intercept == pytest.approx(peer.intercept_[0], rel=1e-4)
    np.testing.assert_allclose(ours.scores(features), peer.decision_function(features), rtol=1e-4, atol=1e-5)


def test_planted_truth_is_found_and_noise_is_not():
    (train, labels), (test, truth) = _rows(4000, seed=1, dtype=np.float32), _rows(4000, seed=2, dtype=np.float32)
    fit = fit_logistic_streaming(train, labels, l2=1e-8)
    best = auroc((test - 3.0) @ (np.linspace(-1, 1, WIDTH) / np.logspace(-2, 2, WIDTH)), truth)
    assert auroc(fit.scores(test), truth) == pytest.approx(best, abs=0.005)
    assert fit.n_passes < 20
    noise, labels = _rows(4000, seed=3, signal=0.0)
    assert auroc(fit_logistic_streaming(noise, labels, l2=1e-2).scores(test), truth) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("size", [1, 7, 1000, 4096])
def test_blocks_do_not_matter(size, tmp_path):
    features, labels = _rows(1500, seed=4)
    whole = fit_logistic_streaming(features, labels, l2=1e-3, tolerance_nats=1e-13)

    def blocks():
        return (features[i : i + size] for i in range(0, len(features), size))

    in_blocks = fit_logistic_streaming(blocks, labels, l2=1e-3, tolerance_nats=1e-13)
    np.testing.assert_allclose(in_blocks.weights, whole.weights, rtol=1e-5)
    np.save(tmp_path / "x.npy", features)
    mapped = fit_logistic_streaming(np.load(tmp_path / "x.npy", mmap_mode="r"), labels, l2=1e-3, tolerance_nats=1e-13)
    np.testing.assert_allclose(mapped.weights, whole.weights, rtol=1e-12)


def test_scale_does_not_change_the_number_of_passes():
    features, labels = _rows(3000, seed=5)
    passes = [fit_logistic_streaming(features * scale, labels, l2=1e-3 * scale**2).n_passes for scale in (1e-3, 1.0, 1e3)]
    assert max(passes) - min(passes) <= 2


def test_swapped_labels_swap_the_sign():
    features, labels = _rows(2000, seed=6)
    fit = fit_logistic_streaming(features, labels, l2=1e-2, tolerance_nats=1e-13)
    swapped = fit_logistic_streaming(features, 1 - labels, l2=1e-2, tolerance_nats=1e-13)
    np.testing.assert_allclose(swapped.weights, -fit.weights, rtol=1e-5, atol=1e-9)


def test_single_precision_is_enough():
    features, labels = _rows(3000, seed=7)
    double = fit_logistic_streaming(features, labels, l2=1e-3)
    single = fit_logistic_streaming(features.astype(np.float32), labels, l2=1e-3)
    assert auroc(single.scores(features.astype(np.float32)), labels) == pytest.approx(
        auroc(double.scores(features), labels), abs=1e-3
    )


X, Y = _rows(64, seed=8)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"l2": 0.0}, "expected l2 above 0, got 0.0"),
        ({"labels": Y[:-1]}, "expected 63 rows of width 12, got a block"),
        ({"labels": np.r_[Y, 1]}, "expected one row per label, 65, got 64"),
        ({"labels": np.zeros(64)}, "expected both classes"),
        ({"features": np.where(np.arange(64 * WIDTH).reshape(64, WIDTH) == 70, np.nan, X)}, "expected finite features"),
        ({"features": X[:, 0]}, r"expected rows of floating-point features, got shape \(64,\)"),
        ({"features": X.astype(int)}, "floating-point features, got shape .* of int64"),
        ({"features": lambda: iter(())}, "expected blocks of rows, got none"),
    ],
)
def test_bad_input_is_refused(given, message):
    arguments = {"features": X, "labels": Y, "l2": 1e-2} | given
    with pytest.raises(UsageError, match=message):
        fit_logistic_streaming(arguments["features"], arguments["labels"], l2=arguments["l2"])


def test_a_fit_that_does_not_arrive_is_refused():
    features, labels = _rows(500, seed=9)
    with pytest.raises(CannotMeasure, match="expected a minimum to 1e-12 nats"):
        fit_logistic_streaming(features, labels, l2=1e-4, tolerance_nats=1e-12, max_passes=3)

"""The streaming fitter against the two means it stands for."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.errors import CannotMeasure, UsageError
from auditgap.stats import MeanDifference, auroc


def _fit(batches):
    fitter = MeanDifference(batches[0][0].shape[1])
    for features, labels in batches:
        fitter.update(features, labels)
    return fitter.direction()


def _rows(n: int, seed: int, shift: float, width: int = 8):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 2
    return (rng.standard_normal((n, width)) + shift * labels[:, None]).astype(np.float32), labels


def test_planted_direction_is_found_and_noise_is_not():
    found = _fit([_rows(2000, 0, shift=1.0)])
    np.testing.assert_allclose(found.direction, np.ones(8), atol=0.2)
    assert found.n == (1000, 1000)
    features, labels = _rows(2000, 1, shift=1.0)
    assert auroc((features - found.mean) @ found.direction, labels) > 0.95
    noise = _fit([_rows(2000, 2, shift=0.0)])
    features, labels = _rows(2000, 3, shift=0.0)
    assert auroc((features - noise.mean) @ noise.direction, labels) == pytest.approx(0.5, abs=0.05)


@given(cuts=st.lists(st.integers(1, 59), max_size=5), seed=st.integers(0, 2**16))
def test_batches_and_their_order_do_not_matter(cuts, seed):
    features, labels = _rows(60, seed, shift=0.5)
    edges = [0, *sorted(set(cuts)), 60]
    batches = [(features[a:b], labels[a:b]) for a, b in itertools.pairwise(edges)]
    found, backwards = _fit(batches), _fit(batches[::-1])
    expected = features[labels == 1].mean(0, dtype=np.float64) - features[labels == 0].mean(0, dtype=np.float64)
    np.testing.assert_allclose(found.direction, expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(backwards.direction, expected, rtol=1e-12, atol=1e-12)


def test_sums_do_not_drift():
    """A float32 sum of 200,000 rows near 1000 would be off by more than the difference of the means."""
    features = np.full((50_000, 1), 1000.0, np.float32)
    found = _fit([(features + 0.125 * label, np.full(50_000, label)) for label in (0, 1, 0, 1)])
    assert found.direction[0] == pytest.approx(0.125, abs=1e-9)


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones((3, 5)), [0, 1, 0], "expected rows of width 4 and a label for each"),
        (np.ones((3, 4)), [0, 1], "expected rows of width 4 and a label for each"),
        (np.ones((3, 4)), [0, 1, 2], r"expected 0 and 1, got \[0, 1, 2\]"),
        (np.full((3, 4), np.inf), [0, 1, 0], "expected finite features"),
    ],
)
def test_bad_input_is_refused(features, labels, message):
    fitter = MeanDifference(4)
    with pytest.raises(UsageError, match=message):
        fitter.update(features, labels)


def test_one_class_is_no_difference():
    fitter = MeanDifference(4)
    fitter.update(np.ones((3, 4)), [1, 1, 1])
    with pytest.raises(CannotMeasure, match="got 0 of label 0 and 3 of label 1"):
        fitter.direction()

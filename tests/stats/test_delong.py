"""DeLong's standard error: hand values, its definition by pairs, and coverage in simulation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.errors import UsageError
from auditgap.stats import auroc, auroc_interval, delong_interval, delong_variance

score = st.one_of(st.integers(-3, 3).map(float), st.floats(-1e6, 1e6))
classes = st.tuples(st.lists(score, min_size=2, max_size=20), st.lists(score, min_size=2, max_size=20))


def joined(positives, negatives):
    return np.array([*positives, *negatives]), np.array([1] * len(positives) + [0] * len(negatives))


def by_pairs(positives, negatives):
    """Equations 4 and 5 of DeLong et al. (1988), pair by pair."""
    kernel = np.array([[1.0 if x > y else 0.5 if x == y else 0.0 for y in negatives] for x in positives])
    v10, v01 = kernel.mean(axis=1), kernel.mean(axis=0)
    area = kernel.mean()
    s10 = ((v10 - area) ** 2).sum() / (len(positives) - 1)
    s01 = ((v01 - area) ** 2).sum() / (len(negatives) - 1)
    return s10 / len(positives) + s01 / len(negatives)


def test_a_pencil_gives_the_same():
    """Positives 3, 1 and negatives 2, 0: placements 1, 1/2 and 1/2, 1; variance 2 * (1/8) / 2."""
    scores, labels = joined([3.0, 1.0], [2.0, 0.0])
    assert delong_variance(scores, labels) == pytest.approx(0.125)
    found = delong_interval(scores, labels)
    assert (found.low, found.high, found.method) == (pytest.approx(0.75 - 1.959964 * 0.125**0.5), 1.0, "delong")


@given(classes)
def test_it_is_the_definition_by_pairs(parts):
    scores, labels = joined(*parts)
    assert delong_variance(scores, labels) == pytest.approx(by_pairs(*parts), abs=1e-12)


def test_it_covers_and_agrees_with_resampling():
    """Binormal with true area 0.76; 400 samples: a 95 % interval should hold it in 93 to 97 %, give or take."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(400):
        scores, labels = joined(rng.standard_normal(40) + 1, rng.standard_normal(40))
        found = delong_interval(scores, labels)
        held += found.low <= 0.7602 <= found.high
    assert 0.92 <= held / 400 <= 0.98
    resampled = auroc_interval(scores, labels, np.arange(80), seed=0)
    assert (resampled.low, resampled.high) == pytest.approx((found.low, found.high), abs=0.03)


@given(classes, st.randoms(use_true_random=False))
def test_order_and_names_of_the_classes_do_not_matter(parts, random):
    scores, labels = joined(*parts)
    order = list(range(len(scores)))
    random.shuffle(order)
    assert delong_variance(scores[order], labels[order]) == pytest.approx(delong_variance(scores, labels), abs=1e-12)
    assert delong_variance(scores, 1 - labels) == pytest.approx(delong_variance(scores, labels), abs=1e-12)
    found = delong_interval(scores, labels)
    assert found.low <= auroc(scores, labels) <= found.high


def test_one_row_of_a_class_is_refused():
    with pytest.raises(UsageError, match="at least 2 rows of each class, got 1 and 3"):
        delong_variance([1.0, 2.0, 3.0, 4.0], [1, 0, 0, 0])

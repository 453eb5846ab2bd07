"""Least-squares concept erasure: what the theorem says, and what its assumptions leave out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from auditgap.errors import UsageError
from auditgap.stats.leace import Leace, shrunk

SHAPES = st.tuples(st.integers(8, 60), st.integers(2, 40), st.integers(2, 4), st.booleans(), st.integers(0, 2**32 - 1))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    with threadpool_limits(1):
        yield


def sample(n, d, n_classes, seed):
    """Correlated Gaussian rows far from the origin, moved by their class, and the classes one-hot."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % n_classes)
    x = 10 + rng.standard_normal((n, d)) @ rng.standard_normal((d, d)) + 2 * rng.standard_normal((n_classes, d))[labels]
    return x, np.eye(n_classes)[labels], labels


def fitted(x, z, *, shrink=True, cuts=()):
    fitter = Leace(x.shape[1], z.shape[1] if z.ndim == 2 else 1, shrink=shrink)
    for rows, concept in zip(np.split(x, cuts), np.split(z, cuts), strict=True):
        fitter.update(rows, concept)
    return fitter


# The theorem


@settings(deadline=None)
@given(SHAPES)
def test_class_means_coincide_on_the_fitting_rows_whatever_the_shape_and_shrinkage(shape):
    n, d, n_classes, shrink, seed = shape
    x, z, labels = sample(n, d, n_classes, seed)
    eraser = fitted(x, z, shrink=shrink).eraser()
    erased = eraser(x)
    scale = np.abs(eraser.read).max() * np.abs(eraser.write).max() * np.abs(x).max() * d
    for label in range(1, n_classes):
        gap = erased[labels == label].mean(0) - erased[labels == 0].mean(0)
        np.testing.assert_allclose(gap, 0, atol=1e-13 * scale)
    np.testing.assert_allclose(erased.mean(0), x.mean(0), atol=1e-13 * scale)
    np.testing.assert_allclose(eraser(erased), erased, atol=1e-13 * scale)
    assert 1 <= eraser.rank <= min(n_classes - 1, d)


def test_sklearn_could_learn_before_and_can_not_after():
    """Golden: with C = 1 the largest coefficient after erasure is of the order of the class-mean gap, 1e-15 to 1e-9.

    Peer scikit-learn 1.9, lbfgs, float64. The bar is 1e-4; with C = 1e9 the optimiser stops before the optimum.
    """
    x, _, labels = sample(400, 16, 2, seed=1)
    erased = fitted(x, labels).eraser()(x)
    before, after = (LogisticRegression(C=1.0, max_iter=5000).fit(rows, labels) for rows in (x, erased))
    assert before.score(x, labels) > 0.75
    assert np.abs(after.coef_).max() < 1e-4
    assert after.score(erased, labels) == 0.5
    assert np.abs(erased[labels == 1].mean(0) - erased[labels == 0].mean(0)).max() < 1e-13


def test_no_other_map_that_equalises_the_means_moves_the_rows_less():
    """Optimality: against orthogonal projection of the mean difference, and against projections along random directions."""
    x, _, labels = sample(500, 8, 2, seed=2)
    eraser, rng = fitted(x, labels, shrink=False).eraser(), np.random.default_rng(0)
    moved = ((eraser(x) - x) ** 2).sum(1).mean()
    gap = x[labels == 1].mean(0) - x[labels == 0].mean(0)
    for reading in (gap, *(gap + 0.5 * rng.standard_normal((20, 8)))):
        other = ((x - x.mean(0)) @ reading / (gap @ reading))[:, None] * gap
        assert moved < (other**2).sum(1).mean()


def test_each_column_alone_or_all_together():
    x, _, labels = sample(200, 12, 2, seed=3)
    other = np.random.default_rng(0).permutation(labels)
    z = np.stack([labels, other], axis=1)
    alone, second = fitted(x, z).column_erasers()
    np.testing.assert_allclose(alone(x), fitted(x, labels).eraser()(x), atol=1e-10)
    np.testing.assert_allclose(second(x), fitted(x, other).eraser()(x), atol=1e-10)
    both = fitted(x, z).eraser()
    assert both.rank == 2
    for its in (labels, other):
        assert np.abs(both(x)[its == 1].mean(0) - both(x)[its == 0].mean(0)).max() < 1e-12


# Nothing to erase


def test_a_concept_that_can_not_be_read_leaves_the_rows_alone():
    x = np.tile(np.random.default_rng(0).standard_normal((10, 4)), (2, 1))
    eraser = fitted(x, np.repeat([0, 1], 10)).eraser()
    assert eraser.rank == 0
    np.testing.assert_array_equal(eraser(x), x)
    same = np.full((6, 3), 0.1)
    assert fitted(same, np.array([0, 1] * 3)).eraser().rank == 0


def test_a_plane_without_the_concept_is_not_touched():
    """Features that neither covary with the label nor with what does stay as they were."""
    rng = np.random.default_rng(0)
    x, _, labels = sample(50_000, 3, 2, seed=4)
    x = np.concatenate([x, rng.standard_normal((50_000, 2))], axis=1)
    moved = fitted(x, labels).eraser()(x) - x
    assert np.abs(moved[:, 3:]).max() < 0.1 * np.abs(moved[:, :3]).max()


# Invariance


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=6), st.integers(0, 1000))
def test_batches_do_not_matter(cuts, seed):
    x, z, _ = sample(40, 6, 3, seed)
    whole, parts = fitted(x, z).eraser(), fitted(x, z, cuts=sorted(cuts)).eraser()
    np.testing.assert_allclose(parts(x), whole(x), rtol=1e-8, atol=1e-8)


def test_shift_and_scale_of_the_rows_carry_over():
    x, _, labels = sample(60, 5, 2, seed=5)
    one, other = fitted(x, labels).eraser(), fitted(3 * x - 100, labels).eraser()
    np.testing.assert_allclose(other(3 * x - 100), 3 * one(x) - 100, atol=1e-8)


# The shrinkage


def test_shrinkage_comes_nearer_the_truth_and_vanishes_with_rows():
    rng, d = np.random.default_rng(0), 30
    root = rng.standard_normal((d, d)) / d**0.5
    truth = root @ root.T + 0.2 * np.eye(d)
    for n, least in ((20, 0.2), (100_000, 0.0)):
        sample_ = np.cov(rng.multivariate_normal(np.zeros(d), truth, size=n), rowvar=False, bias=True)
        raw, mixed = (np.linalg.norm(s - truth) for s in (sample_, shrunk(sample_, n_rows=n)))
        assert mixed <= raw * (1 - least) + 1e-3
        assert np.trace(shrunk(sample_, n_rows=n)) == pytest.approx(np.trace(sample_))
    np.testing.assert_allclose(shrunk(2 * np.eye(3), n_rows=5), 2 * np.eye(3))


@pytest.mark.peer
def test_the_same_map_as_the_authors_code():
    """concept-erasure 0.2.4, float64: the largest difference seen is 2e-13 (400 x 16, 60 x 128, 300 x 24 with four classes)."""
    torch, peer = pytest.importorskip("torch"), pytest.importorskip("concept_erasure")
    for n, d, n_classes in ((400, 16, 2), (60, 128, 2), (300, 24, 4)):
        x, z, _ = sample(n, d, n_classes, seed=6)
        for shrink in (True, False):
            theirs = peer.LeaceFitter(d, n_classes, shrinkage=shrink, dtype=torch.float64)
            theirs.update(torch.tensor(x), torch.tensor(z))
            ours = fitted(x, z, shrink=shrink).eraser()(x)
            np.testing.assert_allclose(ours, theirs.eraser(torch.tensor(x)).numpy(), atol=1e-10)


# Refusal


def test_bad_rows_are_refused():
    with pytest.raises(UsageError, match=r"x: expected rows of 4 numbers, got shape \(3, 5\)"):
        Leace(4).update(np.zeros((3, 5)), [0, 1, 0])
    with pytest.raises(UsageError, match="as many rows of x as of z, got 3 and 2"):
        Leace(4).update(np.zeros((3, 4)), [0, 1])
    with pytest.raises(UsageError, match="NaN or infinity in row 1"):
        Leace(1).update([[0.0], [np.nan]], [0, 1])
    with pytest.raises(UsageError, match=r"z: expected rows of 1 numbers, got shape \(2, 2\)"):
        Leace(1).update([[0.0], [1.0]], np.eye(2))


def test_one_class_and_no_rows_are_refused():
    with pytest.raises(UsageError, match=r"columns \[1\] of z are the same in every row"):
        fitted(np.eye(3), np.array([[0, 1], [1, 1], [0, 1]])).eraser()
    with pytest.raises(UsageError, match="at least 2 rows to fit on, got 0"):
        Leace(3).eraser()
    with pytest.raises(UsageError, match="at least 1 row"):
        shrunk(np.eye(2), n_rows=0)

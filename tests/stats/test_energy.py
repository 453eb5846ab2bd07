"""Energy distance: SciPy in one dimension, and a permutation test whose p-values are uniform where nothing differs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import energy_distance as scipy_energy_distance

from auditgap.errors import UsageError
from auditgap.stats.energy import energy_distance, energy_permutation_test

samples = arrays(np.float64, st.tuples(st.integers(1, 12), st.just(2)), elements=st.floats(-50, 50))


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=20), st.lists(st.floats(-100, 100), min_size=1, max_size=20))
def test_it_is_scipys_distance_squared_in_one_dimension(x, y):
    assert energy_distance(x, y) == pytest.approx(scipy_energy_distance(x, y) ** 2, abs=1e-6)


@given(samples, samples, st.floats(0.1, 10))
def test_order_place_and_rotation_do_not_matter_and_scale_does_in_proportion(x, y, scale):
    found = energy_distance(x, y)
    assert found == pytest.approx(energy_distance(y[::-1], x), abs=1e-9)
    assert found == pytest.approx(energy_distance(x + 3, y + 3), abs=1e-6)
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    assert found == pytest.approx(energy_distance(x @ turn, y @ turn), abs=1e-6)
    assert scale * found == pytest.approx(energy_distance(scale * x, scale * y), abs=1e-5)
    assert energy_distance(x, np.tile(x, (3, 1))) == pytest.approx(0, abs=1e-9)


def p_values(shift, n, *, groups=None, cluster=1, seed=0):
    rng = np.random.default_rng(seed)
    found = []
    for repeat in range(n):
        x, y = (np.repeat(rng.normal(size=(30 // cluster, 3)), cluster, axis=0) for _ in range(2))
        found.append(energy_permutation_test(x, y + shift, groups=groups, n_permutations=39, seed=repeat).p)
    return np.array(found)


def test_a_difference_is_found_and_nothing_is_not():
    assert (p_values(1.0, 20) <= 0.05).mean() > 0.9
    p = p_values(0.0, 300)
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=0.044)  # three and a half standard errors
    assert np.mean(p <= 0.5) == pytest.approx(0.5, abs=0.1)


def test_rows_of_a_group_move_together():
    groups = [*(f"x{i // 5}" for i in range(30)), *(f"y{i // 5}" for i in range(30))]
    assert np.mean(p_values(0.0, 60, cluster=5) <= 0.05) > 0.3  # five copies of a row are no five rows
    assert np.mean(p_values(0.0, 60, cluster=5, groups=groups) <= 0.05) <= 0.15


def test_a_change_of_spread_is_found_where_the_means_are_equal():
    rng = np.random.default_rng(1)
    found = energy_permutation_test(rng.normal(size=(150, 2)), 2 * rng.normal(size=(150, 2)), n_permutations=99, seed=0)
    assert found.p == 0.01 and found.statistic > 0


def test_same_seed_same_p():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=20), rng.normal(0.5, 1, size=25)
    one, two = (energy_permutation_test(x, y, n_permutations=99, seed=3) for _ in range(2))
    assert one == two


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: energy_distance([], [1.0]), "x: expected at least one row"),
        (lambda: energy_distance([1.0], [np.nan]), "y: expected at least one row of finite numbers"),
        (lambda: energy_distance([[1.0, 2.0]], [1.0]), "two samples of one width, got 2 and 1"),
        (lambda: energy_distance(["a"], [1.0]), "x: expected numbers"),
        (lambda: energy_distance(np.zeros(5000), np.zeros(5000)), "expected at most 8192 rows"),
        (lambda: energy_permutation_test([1.0], [2.0], groups=["a"], seed=0), "groups: expected 2"),
        (lambda: energy_permutation_test([1.0], [2.0], n_permutations=0, seed=0), "n_permutations"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()

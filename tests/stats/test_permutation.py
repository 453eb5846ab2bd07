"""Permutation nulls: uniform where nothing is there, small where something is, and faithful to the groups."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.errors import UsageError
from auditgap.stats import auroc, max_statistic_p, permute_labels

designs = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6)), min_size=2, max_size=40).filter(
    lambda rows: len({label for label, _ in rows}) == 2
)


@given(designs, st.integers(0, 2**32))
def test_group_structure_survives(rows, seed):
    labels, groups = np.array([label for label, _ in rows]), np.array([group for _, group in rows])
    permuted = permute_labels(labels, groups, np.random.default_rng(seed))

    def kinds(of):
        shares = {int(g): (of[groups == g].mean(), (groups == g).sum()) for g in np.unique(groups)}
        return Counter(share for share, _ in shares.values() if share in (0, 1)), {
            g: share for g, (share, _) in shares.items() if 0 < share < 1
        }

    assert kinds(permuted) == kinds(labels)  # as many groups of each label; every mixed group keeps its balance
    assert set(permuted.tolist()) <= {0, 1}


def test_pairs_flip_like_coins_and_every_flip_is_as_likely():
    labels, groups = np.array([1, 0, 0, 1, 1, 0]), ["a", "a", "b", "b", "c", "c"]
    rng = np.random.default_rng(0)
    seen = Counter(tuple(permute_labels(labels, groups, rng).tolist()) for _ in range(4000))
    assert len(seen) == 8
    assert all(a + b == 1 and c + d == 1 and e + f == 1 for a, b, c, d, e, f in seen)
    assert max(seen.values()) < 620 and min(seen.values()) > 380  # 500 expected, standard deviation 21


def test_whole_groups_exchange_labels_and_every_exchange_is_as_likely():
    labels, groups = np.array([1, 1, 1, 0, 0, 0]), ["a", "a", "b", "c", "d", "d"]
    rng = np.random.default_rng(0)
    seen = Counter(tuple(permute_labels(labels, groups, rng).tolist()) for _ in range(6000))
    assert len(seen) == 6  # four groups, two of each label
    assert max(seen.values()) < 1150 and min(seen.values()) > 850  # 1000 expected, standard deviation 29


def null_maxima(search, labels, groups, *, n_permutations, seed):
    """The best value that a search finds under each relabelling."""
    rng = np.random.default_rng(seed)
    return np.array([max(search(permute_labels(labels, groups, rng))) for _ in range(n_permutations)])


def false_alarms(groups, effect_groups, *, n_repeats, seed):
    """p-values of a search over 5 noise candidates whose values are shared within `effect_groups`."""
    labels = np.repeat([0, 1], 30)
    rng = np.random.default_rng(seed)
    p_values = []
    for repeat in range(n_repeats):
        noise = rng.normal(size=(5, 60))[:, effect_groups]

        def best(relabelled, noise=noise):
            return [candidate[relabelled == 1].mean() - candidate[relabelled == 0].mean() for candidate in noise]

        null = null_maxima(best, labels, groups, n_permutations=39, seed=repeat)
        p_values.append(max_statistic_p(max(best(labels)), null))
    return np.array(p_values)


def test_p_is_uniform_where_there_is_nothing():
    """400 repeats of a search over 5 candidates with K = 39: every p of k/40 is equally likely."""
    clusters = np.arange(60) // 3
    p = false_alarms(clusters, clusters, n_repeats=400, seed=1)
    for level in (0.05, 0.25, 0.5, 0.75):
        assert np.mean(p <= level) == pytest.approx(level, abs=3.5 * math.sqrt(level * (1 - level) / 400))


def test_ignoring_groups_raises_false_alarms():
    """The control of the test above: the simulation can tell a wrong null."""
    p = false_alarms(np.arange(60), np.arange(60) // 6, n_repeats=100, seed=2)
    assert np.mean(p <= 0.05) > 0.2


def test_a_planted_difference_is_found_at_the_smallest_p():
    labels = np.arange(80) % 2
    scores = np.random.default_rng(0).normal(size=80) + 2 * labels
    null = null_maxima(lambda y: [auroc(scores, y)], labels, range(80), n_permutations=999, seed=0)
    assert max_statistic_p(auroc(scores, labels), null) == 0.001


def test_a_wider_search_has_a_higher_null():
    labels = np.arange(40) % 2
    noise = np.random.default_rng(0).normal(size=(50, 40))

    def search(width):
        return null_maxima(lambda y: [auroc(row, y) for row in noise[:width]], labels, range(40), n_permutations=60, seed=0)

    assert np.median(search(50)) > np.median(search(1)) + 0.1


def test_p_counts_ties_and_the_observed_one():
    assert max_statistic_p(1.0, [0.0, 1.0, 2.0]) == 0.75
    assert max_statistic_p(3.0, [0.0, 1.0, 2.0]) == 0.25
    assert max_statistic_p(0.1 + 0.2, [0.3]) == 1.0  # differs by rounding alone
    assert max_statistic_p(math.inf, [1.0]) == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: max_statistic_p(1.0, []), "null_maxima: expected at least one"),
        (lambda: max_statistic_p(math.nan, [1.0]), "observed: expected numbers, got NaN"),
        (lambda: max_statistic_p(1.0, [math.nan]), "null_maxima: expected numbers, got NaN"),
        (lambda: permute_labels([1, 1], "ab", np.random.default_rng(0)), "expected both classes"),
        (lambda: permute_labels([], [], np.random.default_rng(0)), "labels: expected at least one"),
        (lambda: permute_labels([0, 1], ["a"], np.random.default_rng(0)), "groups: expected 2, one per row, got 1"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()

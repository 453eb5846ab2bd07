"""A weighted sum of rates: as written out for two, covering at least its level, whatever the order."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from auditgap.errors import UsageError
from auditgap.stats import clopper_pearson, contrast

# Planted truth found


def test_a_shift_is_shown_and_its_size_lies_inside():
    found = contrast([(90, 100), (20, 100)], [1.0, -1.0])
    assert found.shown and found.value == pytest.approx(0.7)
    assert found.interval.low < 0.7 < found.interval.high


@given(st.integers(0, 30), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_of_two_rates_it_is_square_and_add_written_out(old, new):
    found = contrast([(new, 40), (old, 30)], [1.0, -1.0], level=0.9)
    before, after = clopper_pearson(old, 30, level=0.9), clopper_pearson(new, 40, level=0.9)
    shift = new / 40 - old / 30
    low = shift - math.sqrt((new / 40 - after.low) ** 2 + (before.high - old / 30) ** 2)
    high = shift + math.sqrt((after.high - new / 40) ** 2 + (old / 30 - before.low) ** 2)
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx((shift, low, high))


def test_it_covers_at_least_its_level():
    rng, rates, weights, n_out = np.random.default_rng(1), [0.02, 0.5, 0.9, 0.1], [0.5, -0.5, 0.5, -0.5], 0
    truth = float(np.dot(rates, weights))
    for _ in range(150):
        found = contrast([(int(rng.binomial(30, rate)), 30) for rate in rates], weights, level=0.9)
        n_out += not found.interval.low <= truth <= found.interval.high
    assert binom.sf(n_out - 1, 150, 0.1) > 0.01, n_out


# Negative control silent


@pytest.mark.parametrize("counts", [[(3, 10), (3, 10)], [(0, 5), (2, 5)]])
def test_no_shift_or_too_few_trials_show_nothing(counts):
    assert not contrast(counts, [1.0, -1.0]).shown


# Invariance


@given(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([-1.0, -0.5, 0.5, 1.0])), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_order_is_irrelevant_and_turned_weights_turn_it_round(rates):
    counts, weights = [(hits, 9) for hits, _ in rates], [weight for _, weight in rates]
    one, back = contrast(counts, weights), contrast(counts[::-1], weights[::-1])
    turned = contrast(counts, [-weight for weight in weights])
    assert (one.interval.low, one.interval.high) == pytest.approx((back.interval.low, back.interval.high))
    assert (one.interval.low, one.interval.high) == pytest.approx((-turned.interval.high, -turned.interval.low))


# Bad input refused


@pytest.mark.parametrize(("counts", "weights"), [([(1, 2)], []), ([], []), ([(0, 0)], [1.0]), ([(3, 2)], [1.0])])
def test_what_has_no_rate_is_refused(counts, weights):
    with pytest.raises(UsageError, match="expected"):
        contrast(counts, weights)

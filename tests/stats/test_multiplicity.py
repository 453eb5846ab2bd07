"""Holm's procedure: against the closure principle that defines it, and its error rate."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditgap.errors import UsageError
from auditgap.stats import holm

p_lists = st.lists(st.floats(0, 1), min_size=1, max_size=6)


@given(p_lists)
def test_it_is_the_closure_of_bonferroni(p_values):
    """A hypothesis falls when every set of hypotheses that holds it falls; sets are tested by Bonferroni."""
    n = len(p_values)

    def adjusted(i):
        sets = (s for size in range(1, n + 1) for s in combinations(range(n), size) if i in s)
        return max(min(1.0, len(s) * min(p_values[j] for j in s)) for s in sets)

    np.testing.assert_allclose(holm(p_values), [adjusted(i) for i in range(n)], rtol=1e-12)


@given(p_lists, st.randoms(use_true_random=False))
def test_order_does_not_matter_and_nothing_gets_smaller(p_values, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    np.testing.assert_array_equal(holm([p_values[i] for i in order]), holm(p_values)[order])
    assert (holm(p_values) >= p_values).all()


def test_family_of_noise_is_rarely_rejected_and_a_planted_effect_is():
    rng = np.random.default_rng(0)
    families = rng.uniform(size=(2000, 10))
    rejected = np.mean([(holm(family) <= 0.05).any() for family in families])
    assert rejected == pytest.approx(1 - 0.995**10, abs=0.017)  # 0.0489, three and a half standard errors
    planted = holm([*families[0], 1e-6])
    assert planted[-1] == pytest.approx(1.1e-5)


@pytest.mark.parametrize("p_values", [[], [0.5, float("nan")], [1.2], [-0.1]])
def test_what_is_no_p_value_is_refused(p_values):
    with pytest.raises(UsageError, match="p_values: expected"):
        holm(p_values)

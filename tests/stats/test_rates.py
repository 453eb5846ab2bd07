"""Rates whose rows come in groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.errors import UsageError
from auditgap.stats import clopper_pearson, group_rate


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_single_rows_give_the_exact_interval(hits):
    rate, exact = group_rate(hits, [str(i) for i in range(len(hits))]), clopper_pearson(sum(hits), len(hits))
    assert rate.value == pytest.approx(np.mean(hits))
    assert (rate.interval.low, rate.interval.high) == (exact.low, exact.high)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=20), st.integers(1, 5))
def test_copies_of_a_row_add_nothing(hits, copies):
    groups = [str(i) for i in range(len(hits))]
    assert group_rate(hits * copies, groups * copies) == group_rate(hits, groups)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcdefg")), min_size=1, max_size=40))
def test_the_rate_lies_in_its_interval(rows):
    rate = group_rate([hit for hit, _ in rows], [group for _, group in rows])
    assert rate.interval.low <= rate.value <= rate.interval.high


def test_each_group_counts_once():
    assert group_rate([1, 0, 0, 0, 0], ["a", "b", "b", "b", "b"]).value == 0.5


def test_the_interval_covers_when_the_rows_of_a_group_agree():
    rng, covered = np.random.default_rng(0), 0
    for _ in range(100):
        hits, groups = np.repeat(rng.random(30) < 0.8, 4), [str(i) for i in range(30) for _ in range(4)]
        interval = group_rate(hits, groups).interval
        covered += interval.low <= 0.8 <= interval.high
    assert covered / 100 >= 0.93


@pytest.mark.parametrize(("hits", "groups"), [([], []), ([1, 0], ["a"]), ([2.0], ["a"]), ([float("nan")], ["a"])])
def test_bad_rows_are_refused(hits, groups):
    with pytest.raises(UsageError, match="expected"):
        group_rate(hits, groups)

"""The cluster bootstrap covers as it says when rows hang together, and says so when it cannot."""

import math

import numpy as np
import pytest

from auditgap.errors import CannotMeasure, UsageError
from auditgap.stats import auroc, cluster_bootstrap

N_GROUPS, ROWS_PER_GROUP = 40, 4
GROUPS = np.repeat(np.arange(N_GROUPS), ROWS_PER_GROUP)


def coverage_of_zero(groups, *, n_repeats):
    """How often the interval holds the true mean 0 of rows that share four fifths of their variance within a group."""
    rng = np.random.default_rng(11)
    covered = 0
    for repeat in range(n_repeats):
        values = 2 * rng.normal(size=N_GROUPS)[GROUPS] + rng.normal(size=len(GROUPS))
        interval = cluster_bootstrap(lambda rows, values=values: values[rows].mean(), groups, n_resamples=300, seed=repeat)
        covered += interval.low <= 0.0 <= interval.high
    return covered / n_repeats


def test_it_covers_the_truth_of_clustered_rows():
    """200 repeats: standard error 0.016; the percentile interval of 40 groups is expected at about 0.93."""
    assert 0.89 <= coverage_of_zero(GROUPS, n_repeats=200) <= 0.985


def test_pretending_that_rows_are_independent_does_not_cover():
    """The control of the test above: the simulation can tell a wrong interval."""
    assert coverage_of_zero(np.arange(len(GROUPS)), n_repeats=60) < 0.8


def test_a_constant_has_no_spread():
    interval = cluster_bootstrap(lambda rows: 2.5, ["a", "b"], n_resamples=10, seed=0)
    assert (interval.low, interval.high, interval.level, interval.method) == (2.5, 2.5, 0.95, "cluster-bootstrap")


def test_singletons_match_scipys_percentile_bootstrap():
    from scipy.stats import bootstrap

    values = np.random.default_rng(3).normal(size=60)
    peer = bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)).confidence_interval
    ours = cluster_bootstrap(lambda rows: values[rows].mean(), range(60), n_resamples=4000, seed=0)
    assert (ours.low, ours.high) == pytest.approx((peer.low, peer.high), abs=0.02)  # both have Monte Carlo error of about 0.006


def test_same_seed_same_interval_whatever_the_groups_are_called_and_another_seed_another():
    values = np.random.default_rng(3).normal(size=len(GROUPS))

    def interval(groups, seed):
        return cluster_bootstrap(lambda rows: values[rows].mean(), groups, n_resamples=50, seed=seed)

    assert interval(GROUPS, 0) == interval([f"group {g}" for g in GROUPS], 0)
    assert interval(GROUPS, 0) != interval(GROUPS, 1)


def test_a_higher_level_is_wider():
    values = np.random.default_rng(3).normal(size=len(GROUPS))
    narrow, wide = (cluster_bootstrap(lambda rows: values[rows].mean(), GROUPS, level=level, seed=0) for level in (0.8, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_whole_groups_are_drawn():
    def statistic(rows):
        counts = np.bincount(rows, minlength=len(GROUPS)).reshape(N_GROUPS, ROWS_PER_GROUP)
        return float((counts == counts[:, :1]).all() and counts.sum() == len(GROUPS))

    assert cluster_bootstrap(statistic, GROUPS, n_resamples=100, seed=0).low == 1.0


def test_resamples_without_a_value_are_drawn_again():
    """Three groups a class: about 3 % of resamples hold one class, on which AUROC refuses."""
    labels, scores = np.array([0, 0, 0, 1, 1, 1]), np.array([0.0, 1.0, 2.0, 1.5, 2.5, 3.0])
    interval = cluster_bootstrap(lambda rows: auroc(scores[rows], labels[rows]), range(6), n_resamples=500, seed=0)
    as_nan = cluster_bootstrap(
        lambda rows: auroc(scores[rows], labels[rows]) if 0 < labels[rows].mean() < 1 else math.nan,
        range(6),
        n_resamples=500,
        seed=0,
    )
    assert interval == as_nan


def test_a_statistic_that_mostly_has_no_value_is_not_measured():
    with pytest.raises(CannotMeasure, match=r"had no value on .* of .* resamples of 6 groups"):
        cluster_bootstrap(lambda rows: 1.0 if len(set(rows.tolist())) == 6 else math.nan, range(6), n_resamples=50, seed=0)


@pytest.mark.parametrize(
    ("groups", "options", "message"),
    [
        ([], {}, "groups: expected at least one"),
        (["a", "a"], {}, "at least 2 groups to resample, got 1"),
        (["a", "b"], {"n_resamples": 0}, "n_resamples: expected at least 1"),
        (["a", "b"], {"level": 1.0}, "level: expected a coverage"),
    ],
)
def test_bad_designs_are_refused(groups, options, message):
    with pytest.raises(UsageError, match=message):
        cluster_bootstrap(lambda rows: 0.0, groups, seed=0, **options)


def test_a_statistic_without_value_on_the_data_is_refused():
    with pytest.raises(UsageError, match="NaN on the data itself"):
        cluster_bootstrap(lambda rows: math.nan, ["a", "b"], seed=0)
    with pytest.raises(UsageError, match="both classes"):
        cluster_bootstrap(lambda rows: auroc([1.0, 2.0], [1, 1]), ["a", "b"], seed=0)

"""E-processes, e-detectors, e-BH, confidence sequences: the bounds that they promise, by simulation; streaming equals batch."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditgap.errors import UsageError
from auditgap.stats import clopper_pearson
from auditgap.stats.confidence_sequence import confidence_sequence
from auditgap.stats.eprocess import (
    ODDS,
    EDetector,
    EProcess,
    MeanBets,
    audited_value,
    e_bh,
    log_e_process,
    mean_factors,
    shiryaev_roberts,
    stakes,
)

budgets = st.floats(1e-4, 1 - 1e-4)
unit = st.floats(0, 1)


def bernoulli(rate, n_streams, n_events, seed):
    return (np.random.default_rng(seed).random((n_streams, n_events)) < rate).astype(float)


# invariance: one bet, two ways to write it


@given(st.lists(unit, min_size=1, max_size=60), budgets)
@settings(deadline=None)
def test_streaming_equals_batch(values, budget):
    bets, process, detector = MeanBets(budget), EProcess(len(ODDS)), EDetector(len(ODDS))
    factors = mean_factors(values, budget)
    e_values = [process.update(bets.factors(value)) for value in values]
    detected = [detector.update(bets.factors(value)) for value in values]
    np.testing.assert_allclose(e_values, log_e_process(factors), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(detected, shiryaev_roberts(factors), rtol=1e-9, atol=1e-9)


@given(st.lists(unit, min_size=2, max_size=40), st.integers(1, 39), budgets)
def test_a_stream_cut_in_two_goes_on_exactly(values, cut, budget):
    bets = MeanBets(budget)
    for kind in (EProcess, EDetector):
        whole, first = kind(len(ODDS)), kind(len(ODDS))
        for value in values:
            whole.update(bets.factors(value))
        for value in values[:cut]:
            first.update(bets.factors(value))
        second = kind(len(ODDS), first.state)
        for value in values[cut:]:
            second.update(bets.factors(value))
        assert second.state == whole.state and second.log_value == whole.log_value


@given(budgets)
def test_bets_on_zero_and_one_are_likelihood_ratios(budget):
    rates = np.array(ODDS) * budget / (1 + budget * (np.array(ODDS) - 1))
    np.testing.assert_allclose(mean_factors([1.0, 0.0], budget), [rates / budget, (1 - rates) / (1 - budget)], rtol=1e-9)


@given(st.lists(st.tuples(unit, st.floats(0.01, 1)), min_size=1, max_size=8), budgets)
def test_no_bet_gains_on_average_within_the_budget(points, budget):
    """Any distribution on [0, 1] with a mean of at most the budget: the mean factor is at most 1."""
    values, weights = np.array(points).T
    weights /= weights.sum()
    values = values * min(1.0, budget / max(weights @ values, 1e-12))
    assert (weights @ mean_factors(values, budget) <= 1 + 1e-9).all()
    assert (mean_factors([0.0, 1.0], budget) > 0).all()


@given(st.lists(st.floats(-5, 20), min_size=1, max_size=12), st.floats(0.001, 0.5))
def test_e_bh_is_its_definition_and_order_does_not_matter(log_e, alpha):
    chosen, n = e_bh(log_e, alpha=alpha), len(log_e)
    by_size = sorted(log_e, reverse=True)
    k = max((k for k in range(1, n + 1) if by_size[k - 1] >= math.log(n / alpha) - math.log(k)), default=0)
    assert chosen.sum() == k
    assert sorted(np.array(log_e)[chosen], reverse=True) == by_size[:k]
    assert e_bh(log_e[::-1], alpha=alpha).sum() == k


def test_detector_is_the_sum_over_all_starts():
    factors = mean_factors(bernoulli(0.2, 1, 30, 0)[0], 0.1)
    sums = [sum(factors[s : t + 1].prod(0) for s in range(t + 1)).mean() for t in range(30)]
    np.testing.assert_allclose(shiryaev_roberts(factors), np.log(sums), rtol=1e-10)


# negative control: null streams at the boundary


def test_e_process_at_the_boundary_keeps_its_level_and_a_repeated_z_test_does_not():
    x = bernoulli(0.05, 600, 3000, seed=1)
    ever = (log_e_process(mean_factors(x, 0.05)) >= math.log(20)).any(1).mean()
    looks = np.arange(100, 3001, 100)
    z = (x.cumsum(1)[:, 99::100] - 0.05 * looks) / np.sqrt(looks * 0.05 * 0.95)
    assert 0.005 < ever <= 0.05  # sharp enough to matter, and below its level
    assert (z >= 1.645).any(1).mean() > 0.2  # nominal 5 %


@settings(max_examples=10, deadline=None)
@given(
    budget=st.floats(0.02, 0.8), concentration=st.floats(0.3, 30), alpha=st.sampled_from([0.05, 0.2]), seed=st.integers(0, 2**31)
)
def test_ville_holds_for_scores_of_any_shape(budget, concentration, alpha, seed):
    x = np.random.default_rng(seed).beta(budget * concentration, (1 - budget) * concentration, (400, 500))
    crossed = int((log_e_process(mean_factors(x, budget)) >= -math.log(alpha)).any(1).sum())
    assert clopper_pearson(crossed, 400, level=1 - 1e-6).low <= alpha


def test_detector_keeps_its_run_length():
    values = shiryaev_roberts(mean_factors(bernoulli(0.05, 400, 2000, seed=2), 0.05))
    for events in (250, 500, 1000):
        crossed = int((values[:, :events] >= math.log(2000)).any(1).sum())
        assert crossed and clopper_pearson(crossed, 400, level=0.9999).low <= events / 2000


def test_weighted_audit_keeps_its_level_where_labels_decide_who_is_looked_at():
    """The naive rate among audited events is far too high here; the weighted one is not."""
    rng = np.random.default_rng(3)
    likely = rng.random((400, 2000)) < 0.1
    label = rng.random((400, 2000)) < np.where(likely, 0.11, 0.01)  # 2 % over all
    probability = np.where(likely, 0.5, 0.1)
    seen = rng.random((400, 2000)) < probability
    value = np.vectorize(lambda y, s, p: audited_value(float(y) if s else None, probability=p, floor=0.1))(
        label, seen, probability
    )
    ever = (log_e_process(mean_factors(value, 0.02 * 0.1)) >= math.log(20)).any(1).mean()
    assert ever <= 0.05
    assert label[seen].mean() > 0.035
    shifted = (log_e_process(mean_factors(value, 0.005 * 0.1)) >= math.log(20)).any(1).mean()
    assert shifted > 0.6  # four times the budget is seen through the audit


def test_e_bh_keeps_its_false_discovery_rate():
    rng = np.random.default_rng(4)
    shares = []
    for _ in range(300):
        rate = np.where(np.arange(10) < 7, 0.05, 0.15)
        log_e = log_e_process(mean_factors(rng.random((10, 600)) < rate[:, None], 0.05))[:, -1]
        alarms = e_bh(log_e, alpha=0.1)
        shares.append(alarms[:7].sum() / max(1, alarms.sum()))
    assert np.mean(shares) <= 0.1
    assert alarms[7:].all()


def test_confidence_sequence_covers_at_every_moment_where_a_repeated_exact_interval_does_not():
    totals = bernoulli(0.1, 150, 1000, seed=5).cumsum(1)
    looks = range(40, 1001, 40)

    def missed(interval):
        interval = functools.cache(interval)
        return np.mean([any(not i.low <= 0.1 <= i.high for n in looks for i in [interval(int(row[n - 1]), n)]) for row in totals])

    assert missed(confidence_sequence) <= 0.05
    assert missed(clopper_pearson) > 0.1


# planted truth


def test_a_raised_rate_is_found_soon():
    e = log_e_process(mean_factors(bernoulli(0.03, 100, 4000, seed=6), 0.01)) >= math.log(100)
    assert e.any(1).mean() > 0.97 and np.median(e.argmax(1)) < 700
    x = bernoulli(0.01, 100, 6000, seed=7)
    x[:, 4000:] = bernoulli(0.03, 100, 2000, seed=8)
    detected = shiryaev_roberts(mean_factors(x, 0.01))[:, 4000:] >= math.log(20_000)
    assert detected.any(1).mean() > 0.97 and np.median(detected.argmax(1)) < 500


def test_capital_comes_back_from_far_below_the_smallest_float():
    bets, process = MeanBets(0.5), EProcess(len(ODDS))
    for value in [0.0] * 5000 + [1.0] * 40_000:
        process.update(bets.factors(value))
    assert process.log_value > math.log(100)


@given(st.integers(1, 5000), st.floats(0, 1))
def test_confidence_sequence_contains_the_mean_and_shrinks(n, share):
    narrow, wide = confidence_sequence(share * n, n), confidence_sequence(share * n, n, level=0.99)
    assert wide.low <= narrow.low <= share + 1e-9 and share - 1e-9 <= narrow.high <= wide.high
    assert clopper_pearson(round(share * n), n).low >= confidence_sequence(round(share * n), n).low - 1e-12


# bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stakes(0.0), "budget: expected a rate strictly between 0 and 1"),
        (lambda: MeanBets(1.0), "budget: expected a rate strictly between 0 and 1"),
        (lambda: MeanBets(math.nan), "budget: expected"),
        (lambda: stakes(0.1, [1.0]), "odds: expected finite numbers above 1"),
        (lambda: MeanBets(0.1).factors(1.01), r"expected a value in \[0, 1\], got 1.01"),
        (lambda: MeanBets(0.1).factors(math.nan), r"expected a value in \[0, 1\], got nan"),
        (lambda: mean_factors([0.5, -0.1], 0.1), r"expected all in \[0, 1\]"),
        (lambda: EProcess(6, [0.0] * 5), "expected a state of 6 finite numbers"),
        (lambda: EDetector(6, [math.inf] * 6), "expected a state of 6 finite numbers"),
        (lambda: EDetector(6, [-1.0] * 6), "at least 0 per bet, got -1"),
        (lambda: EProcess(0), "expected a state"),
        (lambda: e_bh([], alpha=0.1), "log_e_values: expected at least one"),
        (lambda: e_bh([1.0], alpha=1.0), "alpha: expected a chance"),
        (lambda: audited_value(0.5, probability=0.05, floor=0.1), "expected 0 < floor <= probability <= 1"),
        (lambda: audited_value(2.0, probability=0.5, floor=0.1), "label: expected a value"),
        (lambda: confidence_sequence(1.0, 0), "expected at least one event"),
        (lambda: confidence_sequence(3.0, 2), "expected at least one event"),
        (lambda: confidence_sequence(1.0, 2, level=1.0), "level: expected a coverage"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()


@pytest.mark.slow
def test_false_alarms_in_two_thousand_streams_of_twenty_thousand_events():
    crossed = 0
    for seed in range(40):
        values = log_e_process(mean_factors(bernoulli(0.01, 50, 20_000, seed=seed), 0.01))
        crossed += int((values >= math.log(100)).any(1).sum())
    assert 0 < crossed <= 20

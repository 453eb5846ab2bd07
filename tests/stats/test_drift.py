"""Ranks are uniform whatever the distribution, and what moves is found; shares keep to their budgets."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from auditgap.errors import UsageError
from auditgap.stats.drift import (
    N_RANK_BETS,
    SHARE_ODDS,
    Ranks,
    ShareBets,
    conformal_ranks,
    quantile_edges,
    rank_factors,
)
from auditgap.stats.eprocess import EDetector, EProcess, log_e_process, mean_factors, shiryaev_roberts


def streams(draw, n, reference, events, seed, *, n_bins=10):
    """Bins, counts and tie-breaks of null streams, the edges from another part of the reference than the counts."""
    rng = np.random.default_rng(seed)
    bins, counts = [], []
    for _ in range(n):
        sample = draw(rng, reference)
        edges = quantile_edges(sample[::4], n_bins=n_bins)
        counts.append(np.bincount(np.digitize(np.delete(sample, np.s_[::4]), edges), minlength=n_bins)[:n_bins])
        bins.append(np.minimum(np.digitize(draw(rng, events), edges), n_bins - 1))
    return np.array(bins), np.array(counts), rng.random((n, events))


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, n: rng.normal(size=n),
        lambda rng, n: np.exp(3 * rng.normal(size=n)),
        lambda rng, n: np.round(rng.normal(size=n), 1),
    ],
    ids=["normal", "heavy-tailed", "with ties"],
)
def test_ranks_are_uniform_and_independent_even_against_a_tiny_reference(draw):
    ranks = conformal_ranks(*streams(draw, 1500, 40, 6, seed=0))
    assert min(kstest(column, "uniform").pvalue for column in ranks.T) > 0.001
    assert abs(np.corrcoef(ranks.T) - np.eye(6)).max() < 0.1  # 3.9 standard errors


def test_null_streams_stay_below_their_level_where_a_fixed_reference_taken_for_the_truth_does_not():
    bins, counts, uniforms = streams(lambda rng, n: rng.normal(size=n), 300, 100, 2000, seed=1)
    ranks = conformal_ranks(bins, counts, uniforms)
    ever = (log_e_process(rank_factors(ranks)) >= math.log(20)).any(1).mean()
    share = counts / counts.sum(1, keepdims=True)
    above = np.cumsum(share[:, ::-1], 1)[:, ::-1]
    rows = np.arange(len(bins))[:, None]
    naive = above[rows, bins] - uniforms * share[rows, bins]
    assert ever <= 0.05
    assert (log_e_process(rank_factors(naive.clip(0, 1))) >= math.log(20)).any(1).mean() > 0.2
    detector = shiryaev_roberts(rank_factors(ranks))[:, :500] >= math.log(5000)
    assert detector.any(1).mean() <= 0.1 + 0.06


@pytest.mark.parametrize("moved", [lambda x: x + 0.5, lambda x: x - 0.5, lambda x: 2 * x, lambda x: 0.5 * x])
def test_a_shift_and_a_change_of_spread_are_found(moved):
    rng = np.random.default_rng(2)
    reference = rng.normal(size=1000)
    edges = quantile_edges(reference[::4])
    ranks = Ranks(edges, np.bincount(np.digitize(np.delete(reference, np.s_[::4]), edges), minlength=len(edges) + 1).tolist())
    detector = EDetector(N_RANK_BETS)
    for value in rng.normal(size=2000).tolist():
        assert detector.update(ranks.factors(ranks.update(value))) < math.log(20_000)
    after = [detector.update(ranks.factors(ranks.update(value))) for value in moved(rng.normal(size=500)).tolist()]
    assert next(n for n, value in enumerate(after) if value >= math.log(20_000)) < 300


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.integers(0, 2**40))
@settings(deadline=None)
def test_streaming_ranks_equal_batch_and_do_not_depend_on_scale(values, seed):
    edges, counts = [0.25, 0.5, 0.75], [3, 0, 2, 5]
    one, scaled = Ranks(edges, counts, seed=seed), Ranks([8 * e for e in edges], counts, seed=seed)
    found = [one.update(value) for value in values]
    assert found == [scaled.update(8 * value) for value in values]
    ties = [(rank * total - above) / here for rank, (total, above, here) in zip(found, _seen(edges, counts, values), strict=True)]
    bins = np.digitize(values, edges)[None]
    np.testing.assert_allclose(conformal_ranks(bins, counts, np.array([ties]))[0], found, rtol=1e-9, atol=1e-12)
    assert all(-1e-9 <= tie <= 1 for tie in ties)
    np.testing.assert_allclose([Ranks.factors(r) for r in found], rank_factors(found))


def test_streamed_ranks_break_ties_evenly_and_by_seed():
    """Two bins only: without the random part there would be two ranks."""
    values = np.random.default_rng(5).random(3000).tolist()

    def ranks(seed):
        stream = Ranks([0.5], [50, 50], seed=seed)
        return [stream.update(value) for value in values]

    one, other = ranks(0), ranks(1)
    assert kstest(one, "uniform").pvalue > 0.001 and kstest(other, "uniform").pvalue > 0.001
    assert one == ranks(0) and abs(np.corrcoef(one, other)[0, 1]) < 0.8  # the bins are shared, the ties are not
    assert abs(np.corrcoef(one[1:], one[:-1])[0, 1]) < 0.07


def _seen(edges, counts, values):
    counts = list(counts)
    for index in np.digitize(values, edges).tolist():
        counts[index] += 1
        yield sum(counts), sum(counts[index + 1 :]), counts[index]


def test_bets_on_ranks_are_fair_and_never_lose_everything():
    grid = (np.arange(200_000) + 0.5) / 200_000
    factors = rank_factors(grid)
    np.testing.assert_allclose(factors.mean(0), 1, atol=1e-9)
    assert factors.min() > 0


# shares


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=40), st.permutations("abc"))
def test_share_bets_are_rate_bets_side_by_side_in_any_order(events, order):
    budgets = {"a": 0.6, "b": 0.3, "c": 0.2}
    bets, process = ShareBets({name: budgets[name] for name in order}), EProcess(9)
    found = [process.update(bets.factors(event)) for event in events]
    factors = [mean_factors([float(e == name) for e in events], budget, SHARE_ODDS) for name, budget in budgets.items()]
    np.testing.assert_allclose(found, log_e_process(np.concatenate(factors, axis=-1)), atol=1e-9)


def test_shares_at_their_budgets_are_silent_and_one_that_doubled_is_found():
    rng = np.random.default_rng(3)
    budgets = {"code": 0.5, "mail": 0.4, "other": 0.1}

    def value(shares):
        bets, process = ShareBets(budgets), EProcess(9)
        return max(process.update(bets.factors(c)) for c in rng.choice(list(budgets), 3000, p=shares).tolist())

    assert sum(value([0.5, 0.4, 0.1]) >= math.log(20) for _ in range(60)) <= 8  # 3 expected at most
    assert value([0.45, 0.35, 0.2]) >= math.log(1e6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: quantile_edges([1.0, 1.0]), "expected values that differ"),
        (lambda: quantile_edges([1.0, math.nan]), "expected numbers, got NaN"),
        (lambda: quantile_edges([1.0, math.inf]), "finite values"),
        (lambda: quantile_edges([1.0, 2.0], n_bins=1), "at least 2 bins"),
        (lambda: Ranks([1.0, 0.5], [1, 1, 1]), "expected rising edges"),
        (lambda: Ranks([0.5], [1]), "one count more than edges"),
        (lambda: Ranks([0.5], [0, 0]), "at least one reference value"),
        (lambda: Ranks([0.5], [1, 1]).update(math.nan), "got NaN"),
        (lambda: rank_factors([1.5]), r"expected all in \[0, 1\]"),
        (lambda: ShareBets({}), "at least one category"),
        (lambda: ShareBets({"a": 1.0}), "strictly between 0 and 1"),
        (lambda: ShareBets({"code": 0.5}).factors("cod"), "no budget for the category 'cod' - did you mean 'code'"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()

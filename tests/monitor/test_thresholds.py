"""The rate that a threshold promises holds on fresh traffic, and what cannot be promised is not."""

import numpy as np
import pytest

from auditgap.errors import UsageError
from auditgap.monitor.thresholds import controlled_threshold, group_peaks, n_negatives_needed
from auditgap.stats import threshold_at_fpr


@pytest.mark.parametrize(("n", "max_fpr"), [(299, 0.01), (500, 0.01), (1000, 0.05), (59, 0.05)])
@pytest.mark.parametrize("draw", ["normal", "heavy", "ties"])
def test_rate_holds_on_fresh_negatives(n, max_fpr, draw):
    """In 300 calibrations the true rate exceeds the limit in at most 5 %, plus three standard errors."""
    rng = np.random.default_rng(7)
    kinds = {
        "normal": (lambda size: rng.standard_normal(size)),
        "heavy": (lambda size: rng.standard_t(2, size)),
        "ties": (lambda size: np.round(rng.standard_normal(size))),
    }
    fresh, n_trials = np.sort(kinds[draw](200_000)), 300
    exceeded = 0
    for _ in range(n_trials):
        found = controlled_threshold(kinds[draw](n), max_fpr=max_fpr)
        assert found is not None
        exceeded += 1 - np.searchsorted(fresh, found.value, side="right") / len(fresh) > max_fpr
    assert exceeded / n_trials <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / n_trials)


def test_the_naive_threshold_breaks_its_promise():
    """The control: the quantile of the same negatives exceeds its rate about half of the time."""
    rng, exceeded = np.random.default_rng(8), 0
    fresh = np.sort(rng.standard_normal(400_000))
    for _ in range(300):
        naive = threshold_at_fpr(rng.standard_normal(500), max_fpr=0.01)
        exceeded += 1 - np.searchsorted(fresh, naive, side="right") / len(fresh) > 0.01
    assert exceeded / 300 > 0.3


def test_too_few_negatives_give_no_threshold():
    assert n_negatives_needed(0.01) == 299
    assert controlled_threshold(np.zeros(298), max_fpr=0.01) is None
    found = controlled_threshold(np.arange(299.0), max_fpr=0.01)
    assert found is not None and found.value == 298.0 and found.n_exceeding == 0 and found.interval.high <= 0.01


def test_order_does_not_matter():
    scores = np.random.default_rng(0).standard_normal(700)
    assert controlled_threshold(scores, max_fpr=0.02) == controlled_threshold(scores[::-1], max_fpr=0.02)


def test_a_group_counts_once():
    assert group_peaks([1.0, 5.0, 2.0, 3.0], ["a", "b", "a", "b"]).tolist() == [2.0, 5.0]


def test_bad_input_is_refused():
    with pytest.raises(UsageError, match="finite"):
        controlled_threshold([np.nan] * 400, max_fpr=0.01)
    with pytest.raises(UsageError, match="rate in"):
        controlled_threshold([0.0] * 400, max_fpr=0.0)
    with pytest.raises(UsageError, match="confidence"):
        n_negatives_needed(0.01, confidence=0.4)

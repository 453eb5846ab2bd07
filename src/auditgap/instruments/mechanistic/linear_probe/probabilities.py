"""Scores as probabilities: a logistic curve fitted on `val`, and how far it is from the frequencies on `test`.

`val` also chose the place and the strength, so its scores are a little too good and the curve a little too steep: `test` shows
by how much.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from auditgap.instruments.probing.probe import Fold
from auditgap.records import Curve, Interval, Measured
from auditgap.stats import (
    brier,
    cluster_bootstrap,
    equal_mass_bins,
    expected_calibration_error,
    fit_platt,
    group_rate,
    perfect_calibration,
)

__all__ = ["Calibration", "calibrate"]

MAX_BINS = 10
MIN_ROWS_PER_BIN = 10


class Calibration(NamedTuple):
    """How far the probabilities may be believed."""

    measurements: tuple[Measured, ...]
    reliability: Curve


def calibrate(
    on_val: Float[np.ndarray, " val"],
    val: Fold,
    on_test: Float[np.ndarray, " test"],
    test: Fold,
    *,
    n_resamples: int,
    seed: int,
) -> Calibration:
    """Brier score, expected calibration error (ECE), what chance alone would make of the ECE, and the reliability curve."""
    p = fit_platt(on_val, val.labels).probabilities(on_test)
    truth, n_groups = test.labels, len(set(test.groups))
    n_bins = min(MAX_BINS, max(1, len(p) // MIN_ROWS_PER_BIN))
    error = expected_calibration_error(p, truth, n_bins=n_bins)
    resampled = cluster_bootstrap(
        lambda rows: expected_calibration_error(p[rows], truth[rows], n_bins=n_bins),
        test.groups,
        n_resamples=n_resamples,
        seed=seed,
    )
    squared = (p - truth) ** 2
    by_chance = perfect_calibration(p, n_bins=n_bins, n_draws=n_resamples, seed=seed)
    low, high = np.quantile(by_chance, [0.025, 0.975])
    share = float(truth.mean())
    return Calibration(
        (
            Measured(
                name="brier",
                value=brier(p, truth),
                unit="probability^2",
                n=n_groups,
                interval=cluster_bootstrap(
                    lambda rows: float(squared[rows].mean()), test.groups, n_resamples=n_resamples, seed=seed
                ),
                about=f"Mean squared error on `test`; always saying {share:.2f} reads {share * (1 - share):.2f}.",
            ),
            Measured(
                name="ece",
                value=error,
                unit="probability",
                n=n_groups,
                interval=Interval(
                    low=min(error, resampled.low), high=max(error, resampled.high), level=resampled.level, method=resampled.method
                ),
                about=f"Mean distance of probability and frequency over {n_bins} bins of equal mass; resampling adds to it.",
            ),
            Measured(
                name="ece.if_calibrated",
                value=float(by_chance.mean()),
                unit="probability",
                n=n_groups,
                interval=Interval(low=float(low), high=float(high), level=0.95, method="monte-carlo"),
                about="What chance alone makes of the ECE if every probability is true and rows are independent.",
            ),
        ),
        _reliability(p, test, equal_mass_bins(p, n_bins=n_bins)),
    )


def _reliability(p: Float[np.ndarray, " row"], test: Fold, bins: np.ndarray) -> Curve:
    members = [np.flatnonzero(bins == i) for i in range(int(bins.max()) + 1)]
    rates = [group_rate(test.labels[rows], [test.groups[i] for i in rows.tolist()]) for rows in members]
    said = tuple(float(p[rows].mean()) for rows in members)
    return Curve(
        name="reliability",
        title="Share of label 1 against the probability that the probe gives, on test; line: perfect",
        x_label="probability (bins of equal mass)",
        y_label="share of label 1",
        x=said,
        y=tuple(rate.value for rate in rates),
        low=tuple(rate.interval.low for rate in rates),
        high=tuple(rate.interval.high for rate in rates),
        reference=said,
    )

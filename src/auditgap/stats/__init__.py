"""Numbers with their uncertainty: intervals, discrimination, permutation nulls, multiplicity. NumPy and SciPy, never torch."""

from auditgap.stats.bootstrap import cluster_bootstrap
from auditgap.stats.calibration import Platt, brier, equal_mass_bins, expected_calibration_error, fit_platt, perfect_calibration
from auditgap.stats.confidence_sequence import confidence_sequence
from auditgap.stats.contrasts import Contrast, contrast
from auditgap.stats.delong import delong_interval, delong_variance
from auditgap.stats.discrimination import Roc, auroc, auroc_interval, roc, threshold_at_fpr, tpr_at_fpr
from auditgap.stats.drift import N_RANK_BETS, SHARE_ODDS, Ranks, ShareBets, conformal_ranks, quantile_edges, rank_factors
from auditgap.stats.energy import EnergyTest, energy_distance, energy_permutation_test
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
from auditgap.stats.intervals import clopper_pearson, wilson, zero_event_upper_bound
from auditgap.stats.leace import Eraser, Leace
from auditgap.stats.logistic import LogisticFit, fit_logistic_streaming
from auditgap.stats.mean_difference import ClassMeans, MeanDifference
from auditgap.stats.multiplicity import holm
from auditgap.stats.multiverse import flip_rate
from auditgap.stats.permutation import max_statistic_p, permute_labels
from auditgap.stats.rates import GroupRate, group_rate

__all__ = [
    "ClassMeans",
    "Contrast",
    "EDetector",
    "EProcess",
    "EnergyTest",
    "Eraser",
    "GroupRate",
    "Leace",
    "LogisticFit",
    "MeanBets",
    "MeanDifference",
    "N_RANK_BETS",
    "ODDS",
    "Platt",
    "Ranks",
    "Roc",
    "SHARE_ODDS",
    "ShareBets",
    "audited_value",
    "auroc",
    "auroc_interval",
    "brier",
    "clopper_pearson",
    "cluster_bootstrap",
    "confidence_sequence",
    "conformal_ranks",
    "contrast",
    "delong_interval",
    "delong_variance",
    "e_bh",
    "energy_distance",
    "energy_permutation_test",
    "equal_mass_bins",
    "expected_calibration_error",
    "fit_logistic_streaming",
    "fit_platt",
    "flip_rate",
    "group_rate",
    "holm",
    "log_e_process",
    "max_statistic_p",
    "mean_factors",
    "perfect_calibration",
    "permute_labels",
    "quantile_edges",
    "rank_factors",
    "roc",
    "shiryaev_roberts",
    "stakes",
    "threshold_at_fpr",
    "tpr_at_fpr",
    "wilson",
    "zero_event_upper_bound",
]

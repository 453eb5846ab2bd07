"""Numbers with their uncertainty: intervals, discrimination, permutation nulls, multiplicity. NumPy and SciPy, never torch."""

from auditgap.stats.bootstrap import cluster_bootstrap
from auditgap.stats.calibration import Platt, brier, equal_mass_bins, expected_calibration_error, fit_platt, perfect_calibration
from auditgap.stats.delong import delong_interval, delong_variance
from auditgap.stats.discrimination import Roc, auroc, auroc_interval, roc, threshold_at_fpr, tpr_at_fpr
from auditgap.stats.intervals import clopper_pearson, wilson, zero_event_upper_bound
from auditgap.stats.leace import Eraser, Leace
from auditgap.stats.logistic import LogisticFit, fit_logistic_streaming
from auditgap.stats.mean_difference import ClassMeans, MeanDifference
from auditgap.stats.multiplicity import holm
from auditgap.stats.multiverse import flip_rate
from auditgap.stats.permutation import max_statistic_null, max_statistic_p, permute_labels
from auditgap.stats.rates import GroupRate, group_rate

__all__ = [
    "ClassMeans",
    "Eraser",
    "GroupRate",
    "Leace",
    "LogisticFit",
    "MeanDifference",
    "Platt",
    "Roc",
    "auroc",
    "auroc_interval",
    "brier",
    "clopper_pearson",
    "cluster_bootstrap",
    "delong_interval",
    "delong_variance",
    "equal_mass_bins",
    "expected_calibration_error",
    "fit_logistic_streaming",
    "fit_platt",
    "flip_rate",
    "group_rate",
    "holm",
    "max_statistic_null",
    "max_statistic_p",
    "perfect_calibration",
    "permute_labels",
    "roc",
    "threshold_at_fpr",
    "tpr_at_fpr",
    "wilson",
    "zero_event_upper_bound",
]

"""Metrics of click and conversion models: pure functions of labels, predictions and weights."""

from training.metrics.bootstrap import Interval, bootstrap_intervals, paired_bootstrap
from training.metrics.probability import CalibrationBin, calibration_curve, ece, logloss, normalised_entropy, pcoc
from training.metrics.ranking import GroupedAUC, auc, gauc, ndcg_at_k, recall_at_k

__all__ = [
    "CalibrationBin",
    "GroupedAUC",
    "Interval",
    "auc",
    "bootstrap_intervals",
    "calibration_curve",
    "ece",
    "gauc",
    "logloss",
    "ndcg_at_k",
    "normalised_entropy",
    "paired_bootstrap",
    "pcoc",
    "recall_at_k",
]

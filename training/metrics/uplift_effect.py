"""Errors of predicted effects where the true ones are known: simulated and semi-synthetic data only."""

import math

import numpy as np
from numpy.typing import ArrayLike

from training.metrics.uplift_columns import Measured, column, mask


def sqrt_pehe(cate: ArrayLike, true_cate: ArrayLike) -> float:
    """Root of the mean squared error of the effects: the precision in estimating heterogeneous effects.

    Source: Hill 2011, Bayesian Nonparametric Modeling for Causal Inference. The truth is mu1 - mu0 without noise.

    Shapes: cate, true_cate (B,), in units of the outcome.

    Raises:
        ValueError: if a column is malformed or has a NaN.
    """
    predicted = column(cate, "cate")
    return math.sqrt(np.mean((predicted - column(true_cate, "true_cate", len(predicted))) ** 2))


def ate_error(cate: ArrayLike, true_cate: ArrayLike) -> float:
    """Absolute error of the mean effect.

    Shapes: cate, true_cate (B,), in units of the outcome.

    Raises:
        ValueError: if a column is malformed or has a NaN.
    """
    predicted = column(cate, "cate")
    return float(abs(np.mean(predicted) - np.mean(column(true_cate, "true_cate", len(predicted)))))


def att_error(cate: ArrayLike, true_cate: ArrayLike, treated: ArrayLike) -> Measured:
    """Absolute error of the mean effect over the treated rows; 0 with a warning where no row is treated.

    Shapes: cate, true_cate, treated (B,).

    Raises:
        ValueError: if a column is malformed or has a NaN.
    """
    predicted = column(cate, "cate")
    truth = column(true_cate, "true_cate", len(predicted))
    rows = mask(treated, "treated", len(predicted))
    if not rows.any():
        return Measured(0.0, ("no row is treated, so the error of the effect on the treated counts 0",))
    return Measured(ate_error(predicted[rows], truth[rows]))

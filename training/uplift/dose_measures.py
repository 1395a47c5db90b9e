"""What is said about curves: the average one, which of its doses are supported, and errors where the truth is known."""

from __future__ import annotations

from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bundle.effects import supported, unscaled_doses
from bundle.treatment import DoseScale
from training.metrics.uplift_dose import amse, dose_policy_error, mise, policy_error
from training.uplift.measures import Report, plain
from training.uplift.references import arm_means
from training.uplift.support import DoseSupport
from training.uplift.trained import TrainedUplift

Float64 = NDArray[np.float64]
POINTS: Final = 21
# Fewer points than these cut the tops off the error that is integrated.
_FEWEST_FOR_MISE: Final = 65


@runtime_checkable
class Jumps(Protocol):
    """A network whose curves may jump at the borders of its strata."""

    def jump_sizes(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Mean size of the jump at each inner edge, (K, E - 1), on the graph's scale."""
        ...


def dose_scale(support: DoseSupport, unit: str | None) -> DoseScale:
    """What the manifest says about the doses of one arm."""
    return DoseScale(
        low=support.low,
        high=support.high,
        unit=unit,
        supported=support.supported,
        edges=support.edges,
        smooth=not support.edges,
        default=support.default,
    )


def dose_report(opened: TrainedUplift, inputs: tuple[Tensor, ...], truth: dict[str, Any], doses: Float64) -> Report:
    """The average curve of every arm with doses over the rows of one split.

    Args:
        opened: the run.
        inputs: of the rows.
        truth: of the rows, by name.
        doses: (N,) received, in their own unit.
    """
    found: Report = {}
    grid = np.linspace(0.0, 1.0, POINTS)
    average = opened.predictor.average_curve(inputs, grid)
    unit = opened.config.features.treatment.dose_unit if opened.config.features.treatment else None
    jumps = jump_report(opened, inputs)
    for arm, support in opened.doses.items():
        number = opened.scales.arms.index(arm)
        scale = dose_scale(support, unit)
        points = unscaled_doses(grid, scale)
        found[arm] = {
            "unit": unit,
            "default": support.default,
            "dose": points.tolist(),
            "average_outcome": average[number].tolist(),
            "supported": supported(points, scale).tolist(),
        }
        if support.edges:
            found[arm] |= {"edges": list(support.edges), "jumps": jumps[number]}
        if "curves" in truth and "dose_grid" in truth and len(opened.doses) == 1:
            found[arm]["truth"] = curve_errors(opened, inputs, truth, doses, number)
    return plain(found)  # type: ignore[no-any-return]


def jump_report(opened: TrainedUplift, inputs: tuple[Tensor, ...]) -> list[list[float]]:
    """Mean jumps of each arm's curve at its edges: in the outcome's unit, or in logits where it is binary."""
    if not isinstance(opened.network, Jumps):
        return [[] for _ in opened.scales.arms]
    with torch.no_grad():
        jumps = opened.network.jump_sizes(inputs).double() * opened.scales.outcome.sd
    found: list[list[float]] = jumps.tolist()
    return found


def curve_errors(
    opened: TrainedUplift, inputs: tuple[Tensor, ...], truth: dict[str, Any], doses: Float64, number: int
) -> Report:
    """MISE, AMSE at the doses received, and what choosing doses by the curves would lose.

    Beside AMSE stands that of the mean outcome whatever the dose, which a curve must beat.
    """
    arm = opened.scales.arms[number]
    own = np.asarray(truth["dose_grid"], dtype=np.float64)
    low, high = opened.scales.doses[arm]
    grid = (own - low) / (high - low)
    inside = (grid >= 0) & (grid <= 1)
    own, grid = own[inside], grid[inside]
    true_curves = np.asarray(truth["curves"], dtype=np.float64)[:, inside]
    predictor = opened.predictor
    curves = predictor(inputs, grid=grid).curves
    if curves is None:
        return {}
    curves = curves[:, number]
    at = np.clip(np.searchsorted(own, np.clip(doses, own[0], own[-1])), 0, len(own) - 1)
    true_average = true_curves.mean(axis=0)[at]
    average = predictor.average_curve(inputs, grid)[number][at]
    constant = np.full(len(at), arm_means(opened)[number])
    report: Report = {
        "amse": amse(average, true_average),
        "amse_of_mean_curve": amse(curves.mean(axis=0)[at], true_average),
        "amse_of_mean_outcome": amse(constant, true_average),
        "dose_policy_error": dose_policy_error(curves[:, None], true_curves[:, None]),
        "policy_error": policy_error(curves[:, None], true_curves[:, None]),
    }
    if len(grid) >= _FEWEST_FOR_MISE:
        report["mise"] = mise(curves[:, None], true_curves[:, None], grid)
    return report

"""What the training rows know: how many rows each arm has, and which doses were given often enough."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from bundle.effects import LEAST_DENSITY
from training.datasets import Part
from training.uplift.encoding import Float64, Int64, Scales
from training.uplift.network import NetworkPlan

# Cells of equal width on a smooth curve's range, and the rows that a cell or a stratum must have at least.
_CELLS: Final = 10
_LEAST_ROWS: Final = 5


@dataclass(frozen=True, slots=True)
class DoseSupport:
    """Doses of one arm in their own unit.

    Attributes:
        low, high: the range; 0 and 1 to the network.
        default: the median dose of the training rows.
        supported: intervals with enough training rows, ascending and apart.
        edges: inner borders at which the curve may jump; none where it is smooth.
    """

    low: float
    high: float
    default: float
    supported: tuple[tuple[float, float], ...]
    edges: tuple[float, ...]


def arm_rows(train: Part, arms: int) -> Int64:
    """Training rows of each arm, (K,)."""
    return np.bincount(train.treatment, minlength=arms).astype(np.int64)


def dose_supports(train: Part, scales: Scales, plan: NetworkPlan) -> dict[str, DoseSupport]:
    """Support of every arm that has doses.

    A network with strata knows nothing of a stratum without rows; a smooth one is trusted where the density of the
    scaled doses, over cells of equal width, is not far below that of doses given blindly.
    """
    strata = int(plan.options.get("strata", 0))
    found: dict[str, DoseSupport] = {}
    for number in scales.dosed:
        arm = scales.arms[number]
        low, high = scales.doses[arm]
        doses = train.dose[train.treatment == number]
        borders = _borders(low, high, strata or _CELLS)
        counts = _counts(doses, borders)
        least = _LEAST_ROWS if strata else max(_LEAST_ROWS, LEAST_DENSITY * len(doses) / _CELLS)
        found[arm] = DoseSupport(
            low=low,
            high=high,
            default=float(np.clip(np.median(doses), low, high)),
            supported=_merged(borders, counts >= least),
            edges=tuple(borders[1:-1].tolist()) if strata else (),
        )
    return found


def _borders(low: float, high: float, cells: int) -> Float64:
    """Borders of cells of equal width, the outer ones exact."""
    borders = low + (high - low) * np.arange(cells + 1) / cells
    borders[0], borders[-1] = low, high
    return np.asarray(borders)


def _counts(doses: Float64, borders: Float64) -> Int64:
    """Doses in each cell; one on a border belongs to the cell above it, the highest to the last cell."""
    cell = np.clip(np.searchsorted(borders, doses, side="right") - 1, 0, len(borders) - 2)
    return np.bincount(cell, minlength=len(borders) - 1).astype(np.int64)


def _merged(
    borders: Float64, known: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]
) -> tuple[tuple[float, float], ...]:
    """Neighbouring cells that are known, as one interval each run."""
    edges = np.diff(np.concatenate([[False], known, [False]]).astype(np.int64))
    starts, stops = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return tuple((float(borders[start]), float(borders[stop])) for start, stop in zip(starts, stops, strict=True))

"""What a network says about rows, in the units of the data and in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bundle.effects import outcomes, propensities
from bundle.treatment import OutcomeScale
from models.uplift.config import UpliftConfig
from models.uplift.inputs import output_names

Float64 = NDArray[np.float64]
_ROWS_AT_ONCE: Final = 2048


@runtime_checkable
class HasAverageCurve(Protocol):
    """A network with an estimate of the average curve of its own, better than the mean of the users' curves."""

    def average_curve(self, inputs: tuple[Tensor, ...], grid: Tensor) -> Tensor:
        """Average outcome of each arm along the scaled grid, (K, G), as a probability or standardised."""
        ...


@dataclass(frozen=True, slots=True)
class Predictions:
    """N rows, K arms, G points of the grid.

    Attributes:
        outcomes: (N, K) in the outcome's own unit; arms with doses at the doses asked for.
        propensity: (N, K), never clipped; None where the network does not estimate it.
        curves: (N, K, G) in the outcome's own unit; None for networks without doses.
        density: (N, K, G) of the scaled dose given row and arm; None where the network does not estimate it.
    """

    outcomes: Float64
    propensity: Float64 | None
    curves: Float64 | None = None
    density: Float64 | None = None


class Predictor:
    """Asks one network.

    Args:
        network: in eval mode; its ``config`` says what it takes and returns.
        scale: of the outcome.
        default_doses: (K,) scaled dose of each arm where none is asked for; 0 for arms without doses.
    """

    def __init__(self, network: nn.Module, scale: OutcomeScale, default_doses: Float64) -> None:
        config = network.config
        if not isinstance(config, UpliftConfig):
            raise ValueError(f"network must be configured for treatment effects, got {type(config).__name__}")
        self.network = network
        self.scale = scale
        self.default_doses = default_doses
        self.takes_doses = bool(getattr(config, "doses", False))
        self.estimates_propensity = getattr(config, "propensity", "estimated") == "estimated"
        self.names = output_names(
            config.outcome, doses=self.takes_doses, density=bool(getattr(config, "density", False))
        )

    def doses(self, treatment: NDArray[np.int64], dose: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scaled doses to ask about, (N, K): every row's own in the arm it received, the default in the others."""
        asked = np.tile(self.default_doses.astype(np.float32), (len(treatment), 1))
        asked[np.arange(len(treatment)), treatment] = dose
        return asked

    def __call__(
        self,
        inputs: tuple[Tensor, ...],
        doses: NDArray[np.float32] | None = None,
        grid: Float64 | None = None,
    ) -> Predictions:
        """Predictions for rows.

        Args:
            inputs: the five tensors, N rows.
            doses: (N, K) scaled; the defaults where None.
            grid: (G,) scaled, where the curves are wanted; no curves without it.
        """
        found: dict[str, list[Float64]] = {name: [] for name in self.names}
        with torch.no_grad():
            for first in range(0, inputs[0].shape[0], _ROWS_AT_ONCE):
                rows = slice(first, first + _ROWS_AT_ONCE)
                batch = tuple(tensor[rows] for tensor in inputs)
                if self.takes_doses:
                    batch = (*batch, *self._dose_inputs(len(batch[0]), None if doses is None else doses[rows], grid))
                for name, tensor in zip(self.names, self.network(*batch), strict=True):
                    found[name].append(tensor.double().numpy())
        joined = {name: np.concatenate(parts) for name, parts in found.items()}
        curves = next((values for name, values in joined.items() if name.startswith("curve_")), None)
        wanted = grid is not None
        return Predictions(
            outcomes=outcomes(joined[self.names[0]], self.scale),
            propensity=propensities(joined["propensity_logits"]) if self.estimates_propensity else None,
            curves=outcomes(curves, self.scale) if curves is not None and wanted else None,
            density=joined.get("dose_density") if wanted else None,
        )

    def average_curve(self, inputs: tuple[Tensor, ...], grid: Float64) -> Float64:
        """Average outcome of each arm along the scaled grid in its own unit, (K, G): the network's own estimate of it
        where it has one, else the mean of the rows' curves.

        Raises:
            ValueError: if the network takes no doses.
        """
        if isinstance(self.network, HasAverageCurve):
            with torch.no_grad():
                found = self.network.average_curve(inputs, torch.from_numpy(grid.astype(np.float32))).double().numpy()
            # A targeted estimate is an average of probabilities, not of logits: it has no logit scale to undo.
            return np.asarray(found if self.scale.kind == "binary" else outcomes(found, self.scale))
        curves = self(inputs, grid=grid).curves
        if curves is None:
            raise ValueError("network must take doses to have a curve")
        return np.asarray(curves.mean(axis=0))

    def _dose_inputs(self, rows: int, doses: NDArray[np.float32] | None, grid: Float64 | None) -> tuple[Tensor, Tensor]:
        asked = np.tile(self.default_doses.astype(np.float32), (rows, 1)) if doses is None else doses
        points = np.array([0.0, 1.0]) if grid is None else grid
        return torch.from_numpy(asked), torch.from_numpy(points.astype(np.float32))

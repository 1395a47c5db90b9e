"""The rows of one split as tensors: what a plan's losses see. Nothing counterfactual has a place here."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class UpliftRows:
    """N rows.

    Attributes:
        inputs: the five tensors of ``models.uplift.inputs.INPUT_NAMES``, histories padded to one length.
        treatment: (N,) int64, the arm received; 0 is the control.
        dose: (N,) float32 scaled to [0, 1]; 0 where the arm has no dose.
        outcome: (N,) float32, 0 or 1, or standardised with the training rows' mean and standard deviation.
        weight: (N,) float32, how often a row counts.
        environment: (N,) int64, the environment a row was seen in; all 0 where none is named.
    """

    inputs: tuple[Tensor, ...]
    treatment: Tensor
    dose: Tensor
    outcome: Tensor
    weight: Tensor
    environment: Tensor

    def __len__(self) -> int:
        return int(self.treatment.shape[0])

    def take(self, index: Tensor) -> UpliftRows:
        """The rows at the positions (B,) int64, in that order, or where a (N,) bool mask is True."""
        columns = {field.name: getattr(self, field.name)[index] for field in fields(self) if field.name != "inputs"}
        return UpliftRows(inputs=tuple(tensor[index] for tensor in self.inputs), **columns)

    def arm(self, treatment: int) -> UpliftRows:
        """The rows of one arm."""
        return self.take(self.treatment == treatment)

    def counts(self, treatments: int) -> Tensor:
        """Rows of each arm, (K,) int64."""
        return torch.bincount(self.treatment, minlength=treatments)

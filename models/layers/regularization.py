"""Penalties on weights that a layer knows of and a training loop adds."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Regularizer = Callable[[Tensor], Tensor]


class Regularized(nn.Module):
    """A module whose parameters may carry a penalty; ``forward`` never adds it."""

    def __init__(self) -> None:
        super().__init__()
        self._penalties: dict[str, Regularizer] = {}

    def penalize(self, parameter: str, regularizer: Regularizer | None) -> None:
        """Attach a penalty to one of the own parameters, a dotted name for one in a list (None: nothing to attach)."""
        if regularizer is not None:
            self._penalties[parameter] = regularizer

    def regularization_loss(self) -> Tensor:
        """Sum of the penalties of this module and of every module inside it, a scalar; 0 where there are none."""
        reference = next(self.parameters(), torch.zeros(()))
        total = torch.zeros((), dtype=reference.dtype, device=reference.device)
        for module in self.modules():
            if isinstance(module, Regularized):
                for name, penalty in module._penalties.items():
                    total = total + penalty(module.get_parameter(name))
        return total

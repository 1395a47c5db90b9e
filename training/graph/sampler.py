"""Networks that sample outcomes, as modules whose ``forward`` samples: what a bundle's second graph is made from."""

from torch import Tensor, nn


class NoiseSampler(nn.Module):
    """Outcomes of M passes with dropout drawn from the noise: returns (M, U, K) on the scale of the network's outcome.

    Shapes: the five tensors of ``models.uplift.inputs``; noise (M, U, W) uniform in [0, 1).
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """The samples."""
        samples: Tensor = self.network.sample(  # type: ignore[operator]
            user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask, noise
        )
        return samples


class MemberSampler(nn.Module):
    """Outcomes of every member of an ensemble, (E, U, K) on the scale of the network's outcome.

    Shapes: the five tensors of ``models.uplift.inputs``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> Tensor:
        """The members' outcomes."""
        samples: Tensor = self.network.sample(  # type: ignore[operator]
            user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask
        )
        return samples

"""DCN-PD: a shared stack, one stack an outcome, and dropout by the entropy of each user's propensity."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from models.layers.dense import Dense
from models.uplift.config import UpliftConfig
from models.uplift.heads import PropensityHead
from models.uplift.propensity_dropout import MaskedLayers, check_dropout, drop_probability
from models.uplift.users import UserEncoder


@dataclass(frozen=True, kw_only=True, slots=True)
class DCNPDConfig(UpliftConfig):
    """Options of ``DCNPD``.

    Attributes:
        shared_layers, head_layers: widths of the layers that all outcomes share and of each outcome's own.
        activation: of the hidden layers.
        propensity_layers: hidden layers of the propensity network; none makes it a logistic regression.
        gamma: in (0, 1]; every drop probability has (1 - gamma) / 2 added.
        entropy_base: of the entropy's logarithm; 2 gives bits.

    Raises:
        ValueError: if gamma or the base is outside its range, and as ``UpliftConfig``.
    """

    doses: ClassVar[bool] = False
    density: ClassVar[bool] = False

    shared_layers: tuple[int, ...] = (200, 200)
    head_layers: tuple[int, ...] = (200, 200)
    activation: str = "relu"
    propensity_layers: tuple[int, ...] = ()
    gamma: float = 1.0
    entropy_base: float = 2.0

    def __post_init__(self) -> None:
        """Check the values; the layers check their widths."""
        UpliftConfig.__post_init__(self)
        check_dropout(self.gamma, self.entropy_base)

    @property
    def propensity(self) -> Literal["estimated"]:
        """The dropout needs it."""
        return "estimated"


class DCNPD(nn.Module):
    """Deep counterfactual network with propensity dropout.

    The propensity network is separate, embeddings included; it is trained first and then holds still. ``forward``
    drops nothing. ``sample`` drops by noise that is an input, so that every runtime draws the same.

    Source: Alaa, Weisz and van der Schaar 2017, arXiv:1706.05966. Differs from it: K treatments.

    Letters: M passes, W = ``noise_width``. State: encoder.*, shared.*, stacks.{k}.*, outputs.{k}.*,
    propensity_encoder.*, propensity.*.
    """

    def __init__(self, config: DCNPDConfig) -> None:
        super().__init__()
        self.config = config
        self.treatments = len(config.treatments)
        self.gamma = config.gamma
        self.entropy_base = config.entropy_base
        self.encoder = UserEncoder(config.layout, config.embedding_std)
        self.shared = MaskedLayers(self.encoder.width, config.shared_layers, config.activation)
        self.stacks = nn.ModuleList(
            MaskedLayers(self.shared.out_features, config.head_layers, config.activation) for _ in config.treatments
        )
        self.outputs = nn.ModuleList(Dense(config.head_layers[-1], 1) for _ in config.treatments)
        self.propensity_encoder = UserEncoder(config.layout, config.embedding_std)
        self.propensity = PropensityHead(
            self.propensity_encoder.width, self.treatments, config.propensity_layers, config.activation
        )
        self.head_noise = sum(config.head_layers)
        self.noise_width = self.shared.noise_width + self.treatments * self.head_noise

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Outcomes (U, K) with nothing dropped, and propensity logits (U, K)."""
        users = self.encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        shared = self.shared(users)
        outcomes: list[Tensor] = []
        for stack, output in zip(self.stacks, self.outputs):  # noqa: B905 - a strict zip does not script
            outcomes.append(output(stack(shared)))
        own = self.propensity_encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        return torch.cat(outcomes, -1), self.propensity(own)

    def sample(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Outcomes of M passes with dropout, on the scale of ``forward``'s: noise (M, U, W) uniform in [0, 1).

        One pass has one mask of the shared layers, whatever the treatment, so that an effect varies no more than its
        own stacks make it.

        Returns:
            (M, U, K).
        """
        users = self.encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        own = self.propensity_encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        drop = self._drop(self.propensity(own))
        start = self.shared.noise_width
        shared = self.shared.masked(users, drop, noise[..., :start])
        outcomes: list[Tensor] = []
        for stack, output in zip(self.stacks, self.outputs):  # noqa: B905 - a strict zip does not script
            own_noise = noise[..., start : start + self.head_noise]
            outcomes.append(output(stack.masked(shared, drop, own_noise)))  # type: ignore[operator]
            start += self.head_noise
        return torch.cat(outcomes, -1)

    @torch.jit.unused
    def arm_outcome(self, inputs: Sequence[Tensor], arm: int) -> Tensor:
        """One treatment's outcome (B,) of the five input tensors, in train mode with fresh dropout.

        The other treatments' stacks are not run, and no gradient reaches the propensity network.
        """
        users = self.encoder(*inputs)
        stack, output = self.stacks[arm], self.outputs[arm]
        if not self.training:
            return output(stack(self.shared(users))).squeeze(-1)  # type: ignore[no-any-return]
        with torch.no_grad():
            drop = self._drop(self.propensity(self.propensity_encoder(*inputs)))
        noise = torch.rand(users.size(0), self.shared.noise_width + self.head_noise)
        shared = self.shared.masked(users, drop, noise[:, : self.shared.noise_width])
        hidden = stack.masked(shared, drop, noise[:, self.shared.noise_width :])  # type: ignore[operator]
        return output(hidden).squeeze(-1)  # type: ignore[no-any-return]

    @torch.jit.unused
    def propensity_logits(self, inputs: Sequence[Tensor]) -> Tensor:
        """(B, K), of the five input tensors."""
        logits: Tensor = self.propensity(self.propensity_encoder(*inputs))
        return logits

    def arm_modules(self, arm: int) -> tuple[nn.Module, ...]:
        """What learns from one treatment's rows: everything shared, and the treatment's own stack."""
        return self.encoder, self.shared, self.stacks[arm], self.outputs[arm]

    def _drop(self, logits: Tensor) -> Tensor:
        return drop_probability(torch.softmax(logits, -1), self.gamma, self.entropy_base)

"""What the meta-learners are built of: a network from the user's tensors to one number, and their shared options."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from models.uplift.config import UpliftConfig
from models.uplift.heads import NoPropensity, OutcomeHead, PropensityHead
from models.uplift.users import UserEncoder


@dataclass(frozen=True, kw_only=True, slots=True)
class LearnerConfig(UpliftConfig):
    """Options that the S- and the T-learner have, and the others share.

    Attributes:
        hidden_layers: widths of every outcome network's layers; none makes it linear.
        activation: of every hidden layer.
        dropout: of hidden activations, while training.
        propensity: ``estimated`` by a network of its own, or ``none``: every treatment as likely as any other.
        propensity_layers: its hidden layers; none makes it a logistic regression.

    Raises:
        ValueError: if ``propensity`` is unknown, and as ``UpliftConfig``.
    """

    doses: ClassVar[bool] = False
    density: ClassVar[bool] = False

    hidden_layers: tuple[int, ...] = (200, 200, 200, 100, 100)
    activation: str = "elu"
    dropout: float = 0.0
    propensity: Literal["estimated", "none"] = "estimated"
    propensity_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the choices and the rest."""
        UpliftConfig.__post_init__(self)
        if self.propensity not in ("estimated", "none"):
            raise ValueError(f"propensity must be estimated or none, got {self.propensity!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class EffectLearnerConfig(LearnerConfig):
    """Options of learners that also have networks for the effects.

    Attributes:
        effect_layers: widths of every effect network's layers; none makes the effects linear.

    Raises:
        ValueError: as ``LearnerConfig``.
    """

    effect_layers: tuple[int, ...] = (100, 100)


class UserRegression(nn.Module):
    """One number a user, from an encoder and layers that nothing else shares.

    Shapes: the five tensors of ``models.uplift.inputs``; returns (U, 1).
    """

    def __init__(self, config: LearnerConfig, hidden_layers: tuple[int, ...]) -> None:
        super().__init__()
        self.encoder = UserEncoder(config.layout, config.embedding_std)
        self.head = OutcomeHead(self.encoder.width, hidden_layers, config.activation, config.dropout)

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> Tensor:
        """The number."""
        value: Tensor = self.head(
            self.encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        )
        return value


class UserPropensity(nn.Module):
    """Logits of the treatments from an encoder that nothing else shares.

    Shapes: the five tensors of ``models.uplift.inputs``; returns (U, K).
    """

    def __init__(self, config: LearnerConfig) -> None:
        super().__init__()
        self.encoder = UserEncoder(config.layout, config.embedding_std)
        self.head = PropensityHead(
            self.encoder.width, len(config.treatments), config.propensity_layers, config.activation
        )

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> Tensor:
        """Propensity logits."""
        logits: Tensor = self.head(
            self.encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        )
        return logits


class EvenPropensity(nn.Module):
    """Zeros in the place of a propensity that is not estimated.

    Shapes: the five tensors of ``models.uplift.inputs``; returns (U, K).
    """

    def __init__(self, config: LearnerConfig) -> None:
        super().__init__()
        self.head = NoPropensity(len(config.treatments))

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> Tensor:
        """Zeros."""
        logits: Tensor = self.head(user_numbers)
        return logits


def propensity_network(config: LearnerConfig) -> nn.Module:
    """The network that ``config.propensity`` asks for."""
    return UserPropensity(config) if config.propensity == "estimated" else EvenPropensity(config)


def composed_outcomes(control: Tensor, effects: Tensor, binary: bool, lowest: float = 1e-4) -> Tensor:
    """Outcomes whose differences to the control's are the effects, on the scale of the graph.

    Binary: control is a logit and effects are differences of probabilities; p and 1 - p are kept apart, so that the
    logit of a small probability is not rounded as one near 1 is.

    Shapes: control (U, 1), effects (U, K - 1); returns (U, K).

    Args:
        control: outcome under the control, on the graph's scale.
        effects: of every other treatment.
        binary: whether the graph's scale is that of logits.
        lowest: probabilities come no nearer to 0 and 1.
    """
    if not binary:
        return torch.cat([control, control + effects], -1)
    chance = (torch.sigmoid(control) + effects).clamp_min(lowest)
    rest = (torch.sigmoid(-control) - effects).clamp_min(lowest)
    return torch.cat([control, torch.log(chance) - torch.log(rest)], -1)

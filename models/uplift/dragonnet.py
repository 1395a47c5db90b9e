"""DragonNet: outcomes and propensity from one representation, and outcomes moved along the clever covariate."""

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.layers.dense import Dense
from models.layers.mlp import HiddenLayers
from models.uplift.config import UpliftConfig
from models.uplift.heads import OutcomeHead, OutcomeHeads, PropensityHead
from models.uplift.users import UserEncoder

# Keeps 1 / g finite: g~ = (g + c) / (1 + K c).
COVARIATE_SQUEEZE: Final = 0.01


class DragonOutputs(NamedTuple):
    """What DragonNet's losses see.

    Shapes: outcome, propensity_logits, targeted (U, K); ``targeted`` are the outcomes moved along the clever covariate.
    """

    outcome: Tensor
    propensity_logits: Tensor
    targeted: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class DragonNetConfig(UpliftConfig):
    """Options of ``DragonNet``.

    Attributes:
        representation_layers: widths of the shared layers.
        head_layers: widths of each treatment's own layers; none makes the heads linear.
        activation: of every hidden layer.
        dropout: of hidden activations, while training.
        kernel_std: of the shared layers' initial kernels; 0 means glorot_uniform.
        effects: ``plug_in`` answers with the heads, ``targeted`` with the heads moved along the clever covariate.

    Raises:
        ValueError: if ``effects`` is unknown or ``kernel_std`` negative, and as ``UpliftConfig``.
    """

    doses: ClassVar[bool] = False
    density: ClassVar[bool] = False
    propensity: ClassVar[str] = "estimated"

    representation_layers: tuple[int, ...] = (200, 200, 200)
    head_layers: tuple[int, ...] = (100, 100)
    activation: str = "elu"
    dropout: float = 0.0
    kernel_std: float = 0.05
    effects: Literal["plug_in", "targeted"] = "plug_in"

    def __post_init__(self) -> None:
        """Check the choices and the rest."""
        UpliftConfig.__post_init__(self)
        if self.effects not in ("plug_in", "targeted"):
            raise ValueError(f"effects must be plug_in or targeted, got {self.effects!r}")
        if self.kernel_std < 0:
            raise ValueError(f"kernel_std must not be negative, got {self.kernel_std}")


def clever_covariate(propensity_logits: Tensor, squeeze: float = COVARIATE_SQUEEZE) -> Tensor:
    """Along what targeting may move each outcome: 1 / g~_k, for two treatments with the control's sign turned.

    g~ = (g + c) / (1 + K c). With two treatments one epsilon moves both outcomes, so the difference between them is
    what it targets; with more, every treatment has its own.

    Shapes: propensity_logits (U, K); returns (U, K).
    """
    propensity = torch.softmax(propensity_logits, -1)
    covariate = (1.0 + squeeze * propensity.size(-1)) / (propensity + squeeze)
    if propensity.size(-1) == 2:
        covariate = torch.cat([-covariate[:, :1], covariate[:, 1:]], -1)
    return covariate


class DragonNet(nn.Module):
    """Outcome heads and a linear propensity over one representation, with the epsilon of targeted regularisation.

    Targeted outcomes are mu_k + eps h_k(x), on the scale of the loss: for a binary outcome the logits move, and the
    estimating equation is that of the logistic fluctuation.

    Source: Shi, Blei and Veitch 2019, arXiv:1906.02120. Differs from it: K treatments with one epsilon each where there
    are more than two; binary outcomes by logits.

    Shapes: the five tensors of ``models.uplift.inputs``; returns outcome (U, K) and propensity_logits (U, K). State
    beside the layers': epsilon (1,) for two treatments, else (K,).
    """

    def __init__(self, config: DragonNetConfig) -> None:
        super().__init__()
        self.config = config
        arms = len(config.treatments)
        self.encoder = UserEncoder(config.layout, config.embedding_std)
        self.representation = HiddenLayers(
            self.encoder.width, config.representation_layers, dropout=config.dropout, activation=config.activation
        )
        if config.kernel_std > 0:
            for layer in self.representation.dense:
                if isinstance(layer, Dense):
                    nn.init.normal_(layer.kernel, 0.0, config.kernel_std)
        width = self.representation.out_features
        heads = [OutcomeHead(width, config.head_layers, config.activation, config.dropout) for _ in range(arms)]
        self.heads = OutcomeHeads(heads)
        self.propensity = PropensityHead(width, arms, (), config.activation)
        self.epsilon = nn.Parameter(torch.zeros(1 if arms == 2 else arms))
        self.targeted = config.effects == "targeted"

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Outcomes and propensity logits."""
        found = self.training_outputs(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        return (found.targeted if self.targeted else found.outcome), found.propensity_logits

    def training_outputs(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> DragonOutputs:
        """What the losses see."""
        users = self.encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        representation = self.representation(users)
        outcome = self.heads(representation)
        logits = self.propensity(representation)
        return DragonOutputs(outcome, logits, outcome + self.epsilon * clever_covariate(logits))

"""TARNet: a shared representation, a head for every treatment; CFR trains the same network with a balance penalty."""

from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.layers.mlp import HiddenLayers
from models.uplift.config import UpliftConfig
from models.uplift.heads import HEAD_FORMS, NoPropensity, OutcomeHead, OutcomeHeads, PropensityHead
from models.uplift.users import UserEncoder

PropensityKind = Literal["estimated", "none"]


class RepresentationOutputs(NamedTuple):
    """What losses see of a network with a shared representation.

    Shapes: outcome, propensity_logits (U, K); representation (U, D).
    """

    outcome: Tensor
    propensity_logits: Tensor
    representation: Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class TARNetConfig(UpliftConfig):
    """Options of ``TARNet``.

    Attributes:
        representation_layers: widths of the shared layers.
        head_layers: widths of each treatment's own layers; none makes the heads linear.
        activation: of every hidden layer.
        dropout: of hidden activations, while training.
        heads: ``separate`` outcomes, or the control's outcome and an ``offset`` for every other treatment.
        normalize_representation: scale every user's representation to length 1, so that balance between the
            treatments cannot be had by shrinking it.
        propensity: ``estimated`` by a network of its own beside the outcomes' one, or ``none``.
        propensity_layers: its hidden layers; none makes it a logistic regression.

    Raises:
        ValueError: if ``heads`` or ``propensity`` is unknown, and as ``UpliftConfig``.
    """

    doses: ClassVar[bool] = False
    density: ClassVar[bool] = False

    representation_layers: tuple[int, ...] = (200, 200, 200)
    head_layers: tuple[int, ...] = (100, 100)
    activation: str = "elu"
    dropout: float = 0.0
    heads: str = "separate"
    normalize_representation: bool = False
    propensity: PropensityKind = "estimated"
    propensity_layers: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the choices and the rest."""
        UpliftConfig.__post_init__(self)
        if self.heads not in HEAD_FORMS:
            raise ValueError(f"heads must be one of {', '.join(HEAD_FORMS)}; got {self.heads!r}")
        if self.propensity not in ("estimated", "none"):
            raise ValueError(f"propensity must be estimated or none, got {self.propensity!r}")


class TARNet(nn.Module):
    """Treatment-agnostic representation network for K treatments.

    Source: Shalit, Johansson and Sontag 2017, arXiv:1606.03976. Differs from it: K treatments, the option ``offset``,
    and a propensity beside the outcomes for reports and intervals; it shares nothing with them that is trained.

    Shapes: the five tensors of ``models.uplift.inputs``; returns outcome (U, K) and propensity_logits (U, K).
    """

    def __init__(self, config: TARNetConfig) -> None:
        super().__init__()
        self.config = config
        arms = len(config.treatments)
        self.encoder = UserEncoder(config.layout, config.embedding_std)
        self.representation = HiddenLayers(
            self.encoder.width, config.representation_layers, dropout=config.dropout, activation=config.activation
        )
        width = self.representation.out_features
        heads = [OutcomeHead(width, config.head_layers, config.activation, config.dropout) for _ in range(arms)]
        self.heads = OutcomeHeads(heads, config.heads)
        self.normalize = config.normalize_representation
        self.propensity: nn.Module = NoPropensity(arms)
        if config.propensity == "estimated":
            self.propensity = PropensityHead(self.encoder.width, arms, config.propensity_layers, config.activation)

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Outcomes and propensity logits."""
        users = self.encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        outcome: Tensor = self.heads(self._represent(users))
        propensity_logits: Tensor = self.propensity(users)
        return outcome, propensity_logits

    def training_outputs(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> RepresentationOutputs:
        """What the losses see; the propensity's own loss does not reach the outcomes' embeddings."""
        users = self.encoder(user_ids, user_numbers, behaviour_ids, behaviour_numbers, behaviour_mask)
        representation = self._represent(users)
        return RepresentationOutputs(self.heads(representation), self.propensity(users.detach()), representation)

    def _represent(self, users: Tensor) -> Tensor:
        representation: Tensor = self.representation(users)
        if self.normalize:
            length = torch.sqrt(torch.sum(representation * representation, -1, keepdim=True).clamp_min(1e-12))
            representation = representation / length
        return representation

"""DIEN: interests extracted from the history by a GRU and evolved towards each candidate by another."""

from dataclasses import dataclass

from torch import Tensor, nn

from models.ctr.config import SequenceConfig
from models.ctr.fields import PairedFields
from models.ctr.network import SequenceModel
from models.inputs import InputLayout
from models.layers.attention_group import AttentionGroup
from models.layers.auxiliary_loss import AuxiliaryLoss
from models.layers.dien import Interest


@dataclass(frozen=True, kw_only=True, slots=True)
class DIENConfig(SequenceConfig):
    """Options of ``DIENModel``: those of ``SequenceConfig`` and the auxiliary loss.

    Attributes:
        use_negsampling: learn to tell the next behaviour from a sampled one, by ``DIENModel.training_outputs``.
        auxiliary_hidden_layers: of the network that tells them apart.

    Raises:
        ValueError: if no attention group is given, and as ``SequenceConfig``.
    """

    use_negsampling: bool = False
    auxiliary_hidden_layers: tuple[int, ...] = (100, 50)

    def __post_init__(self) -> None:
        """Check the groups and the rest."""
        SequenceConfig.__post_init__(self)
        object.__setattr__(self, "auxiliary_hidden_layers", tuple(self.auxiliary_hidden_layers))
        if not self.attention_groups:
            raise ValueError("attention_groups must name at least one group, got none")


class DIENGroup(nn.Module):
    """Interest of one attention group, with the states and keys that the auxiliary loss needs.

    Extras (the behaviour's type, value, age) enter the extractor beside the keys.

    Shapes: candidates: one (U, C, D) a field, behaviours: one (U, T, D) a field, mask (U, T, S); returns the interest
    (U, C, H) and the extractor's states (U, T, H).
    """

    def __init__(self, layout: InputLayout, group: AttentionGroup, auxiliary: tuple[int, ...] | None) -> None:
        super().__init__()
        self.fields = PairedFields(layout, group.candidates, group.histories, tuple(group.extras))
        width = self.fields.query_width
        self.interest = Interest(
            width,
            group.gru_type,
            group.gru_dropout,
            group.hidden_layers,
            group.att_dropout,
            group.batchnorm,
            group.activation,
            attention=group.attention,
            key_size=width + self.fields.extra_width,
            hidden_size=group.hidden_size,
        )
        self.width = self.interest.hidden_size
        self.auxiliary: AuxiliaryLoss | None = None
        if auxiliary is not None:
            self.auxiliary = AuxiliaryLoss(width, auxiliary, state_size=self.width)

    def forward(
        self, candidates: list[Tensor], behaviours: list[Tensor], behaviour_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The interest towards each candidate, and the states."""
        query, keys = self.fields(candidates, behaviours)
        mask = self.fields.mask(behaviour_mask)
        states = self.interest.extract(keys, mask)
        return self.interest.evolve(query, states, mask), states

    def auxiliary_loss(
        self, states: Tensor, behaviours: list[Tensor], negatives: list[Tensor], behaviour_mask: Tensor
    ) -> Tensor:
        """The loss of telling the next behaviour from a negative, a scalar; over the users that have negatives."""
        if self.auxiliary is None:
            return states.new_zeros(())
        not_clicked = self.fields.keys(negatives)
        users = not_clicked.size(0)
        mask = self.fields.mask(behaviour_mask[:users])
        clicked = self.fields.keys(behaviours)[:users]
        loss: Tensor = self.auxiliary(states[:users], clicked, not_clicked, mask)
        return loss


class DIENModel(SequenceModel):
    """Deep Interest Evolution Network for users x candidates.

    The history's embeddings, the extractor, the input half of the evolution and the keys' half of the attention are
    computed once a user.

    Source: Zhou et al. 2019, arXiv:1809.03672. Differs from it: candidates share their user's work, the attention may
    be a network, and the options of ``SequenceConfig``.

    Shapes: the seven tensors of ``models.inputs``; returns logits (U, C, K).
    """

    def __init__(self, config: DIENConfig) -> None:
        auxiliary = config.auxiliary_hidden_layers if config.use_negsampling else None
        super().__init__(config, [DIENGroup(config.layout, group, auxiliary) for group in config.attention_groups])

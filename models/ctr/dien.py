"""DIEN: interests extracted from the history by a GRU and evolved towards each candidate by another."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.ctr.config import SequenceConfig
from models.ctr.fields import PairedFields
from models.ctr.frame import Frame
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

    @torch.jit.unused
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


class DIENModel(nn.Module):
    """Deep Interest Evolution Network for users x candidates.

    The history's embeddings, the extractor, the input half of the evolution and the keys' half of the attention are
    computed once a user.

    Source: Zhou et al. 2019, arXiv:1809.03672. Differs from it: candidates share their user's work, the attention may
    be a network, and the options of ``SequenceConfig``.

    Shapes: the seven tensors of ``models.inputs``; returns logits (U, C, K).
    """

    def __init__(self, config: DIENConfig) -> None:
        super().__init__()
        self.config = config
        auxiliary = config.auxiliary_hidden_layers if config.use_negsampling else None
        groups = [DIENGroup(config.layout, group, auxiliary) for group in config.attention_groups]
        self.groups = nn.ModuleList(groups)
        self.frame = Frame(config, sum(group.width for group in groups))

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        candidate_ids: Tensor,
        candidate_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> Tensor:
        """Logits (U, C, K)."""
        vectors = self.frame.read(user_ids, candidate_ids, behaviour_ids, behaviour_numbers)
        interests, _ = self._interests(vectors[1], vectors[2], behaviour_mask)
        logits: Tensor = self.frame(
            vectors, interests, user_ids, user_numbers, candidate_ids, candidate_numbers, behaviour_ids, behaviour_mask
        )
        return logits

    def training_outputs(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        candidate_ids: Tensor,
        candidate_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
        negative_behaviour_ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Logits (U, C, K) and the auxiliary loss, averaged over the groups.

        Args:
            user_ids: as forward, like the next six.
            user_numbers: as forward.
            candidate_ids: as forward.
            candidate_numbers: as forward.
            behaviour_ids: as forward.
            behaviour_numbers: as forward.
            behaviour_mask: as forward.
            negative_behaviour_ids: (R, T, Fb), behaviours that did not happen, for the first R <= U users; needed with
                ``use_negsampling``.

        Raises:
            ValueError: if negatives are needed and missing.
        """
        vectors = self.frame.read(user_ids, candidate_ids, behaviour_ids, behaviour_numbers)
        interests, states = self._interests(vectors[1], vectors[2], behaviour_mask)
        logits: Tensor = self.frame(
            vectors, interests, user_ids, user_numbers, candidate_ids, candidate_numbers, behaviour_ids, behaviour_mask
        )
        auxiliary = torch.zeros((), dtype=logits.dtype, device=logits.device)
        if self.config.use_negsampling:
            if negative_behaviour_ids is None:
                raise ValueError("negative_behaviour_ids must be given where use_negsampling is on, got None")
            negatives = self.frame.reader.behaviours(negative_behaviour_ids)
            for group, state in zip(self.groups, states, strict=True):
                auxiliary = auxiliary + group.auxiliary_loss(  # type: ignore[operator]
                    state, vectors[2], negatives, behaviour_mask
                )
            auxiliary = auxiliary / len(states)
        return logits, auxiliary

    def _interests(
        self, candidates: list[Tensor], behaviours: list[Tensor], behaviour_mask: Tensor
    ) -> tuple[list[Tensor], list[Tensor]]:
        interests: list[Tensor] = []
        states: list[Tensor] = []
        for group in self.groups:
            interest, state = group(candidates, behaviours, behaviour_mask)
            interests.append(interest)
            states.append(state)
        return interests, states

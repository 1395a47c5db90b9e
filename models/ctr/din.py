"""DIN: interests by target attention over the history."""

from dataclasses import dataclass
from typing import Final

from torch import Tensor, nn

from models.ctr.config import SequenceConfig
from models.ctr.fields import PairedFields
from models.ctr.network import SequenceModel
from models.inputs import InputLayout
from models.layers.attention_group import AttentionGroup
from models.layers.dense import Dense
from models.layers.target_attention import DIN, InterestAttention

ATTENTION_MODES: Final = ("sum", "softmax")


@dataclass(frozen=True, kw_only=True, slots=True)
class DINOptions:
    """Target attention as a block of other networks.

    Attributes:
        mode: ``sum`` weights the steps by raw scores, ``softmax`` by normalised ones.

    Raises:
        ValueError: if ``mode`` is unknown.
    """

    mode: str = "softmax"

    def __post_init__(self) -> None:
        """Check the mode."""
        if self.mode not in ATTENTION_MODES:
            raise ValueError(f"mode must be one of {', '.join(ATTENTION_MODES)}; got {self.mode!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class DINConfig(SequenceConfig):
    """Options of ``DINModel``: those of ``SequenceConfig`` and the kind of attention.

    Attributes:
        attention_mode: ``sum`` weights the steps by raw scores, ``softmax`` by normalised ones.

    Raises:
        ValueError: if ``attention_mode`` is unknown, and as ``SequenceConfig``.
    """

    attention_mode: str = "sum"

    def __post_init__(self) -> None:
        """Check the mode and the rest."""
        SequenceConfig.__post_init__(self)
        if self.attention_mode not in ATTENTION_MODES:
            raise ValueError(f"attention_mode must be one of {', '.join(ATTENTION_MODES)}; got {self.attention_mode!r}")


class DINGroup(nn.Module):
    """Interest of one attention group.

    Extras (the behaviour's type, value, age) are mapped to the keys' width and added to them, so that a step stays
    comparable with the query.

    Shapes: candidates: one (U, C, D) a field, behaviours: one (U, T, D) a field, mask (U, T, S); returns the interest
    (U, C, Q) and the steps (U, T, Q).
    """

    def __init__(self, layout: InputLayout, group: AttentionGroup, mode: str) -> None:
        super().__init__()
        self.fields = PairedFields(layout, group.candidates, group.histories, tuple(group.extras))
        width = self.fields.query_width
        self.width = width
        self.extras: Dense | None = None
        if self.fields.extra_width > 0:
            self.extras = Dense(self.fields.extra_width, width)
        hidden = list(group.hidden_layers)
        self.attention: nn.Module
        if mode == "sum":
            self.attention = DIN(width, [*hidden, 1], activation=group.activation)
        else:
            self.attention = InterestAttention(width, hidden, group.att_dropout, group.batchnorm, group.activation)

    def forward(
        self, candidates: list[Tensor], behaviours: list[Tensor], behaviour_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The interest towards each candidate, and the steps."""
        keys = self.fields.keys(behaviours)
        if self.extras is not None:
            keys = keys + self.extras(self.fields.extras(behaviours))
        interest: Tensor = self.attention(self.fields.query(candidates), keys, self.fields.mask(behaviour_mask))
        return interest, keys


class DINModel(SequenceModel):
    """Deep Interest Network for users x candidates.

    Source: Zhou et al. 2018, arXiv:1706.06978. Differs from it: candidates share their user's work, and the options of
    ``SequenceConfig``.

    Shapes: the seven tensors of ``models.inputs``; returns logits (U, C, K).
    """

    def __init__(self, config: DINConfig) -> None:
        super().__init__(
            config, [DINGroup(config.layout, group, config.attention_mode) for group in config.attention_groups]
        )

"""CAN: the candidate as a small network that the history goes through."""

from dataclasses import dataclass

from torch import Tensor, nn

from models.ctr.fields import PairedFields
from models.inputs import InputLayout
from models.layers.attention_group import AttentionGroup
from models.layers.co_action import CAN
from models.layers.dense import Dense


@dataclass(frozen=True, kw_only=True, slots=True)
class CANOptions:
    """The co-action unit.

    Attributes:
        width: of the steps that go through the candidate's network.
        layers: of that network.
        activation: of its layers.

    Raises:
        ValueError: if a size is not positive.
    """

    width: int = 8
    layers: int = 2
    activation: str = "tanh"

    def __post_init__(self) -> None:
        """Check the sizes."""
        if min(self.width, self.layers) < 1:
            raise ValueError(f"width and layers must be at least 1, got {self.width} and {self.layers}")


class CANGroup(nn.Module):
    """``CAN`` for users x candidates, averaged over the history.

    Source: Bian et al. 2020, arXiv:2011.05625. Differs from it: the candidate's network comes from its embedding by a
    linear map instead of from a table of its own, so that rare items share what common ones learn; a mean instead of a
    sum over the steps, so that long histories do not outweigh everything else.

    Shapes: candidates: one (U, C, D) a field, behaviours: one (U, T, D) a field, mask (U, T, S); returns the co-action
    (U, C, width) and the steps (U, T, width).
    """

    def __init__(self, layout: InputLayout, group: AttentionGroup, options: CANOptions) -> None:
        super().__init__()
        self.fields = PairedFields(layout, group.candidates, group.histories, tuple(group.extras))
        self.width = options.width
        self.steps = Dense(self.fields.query_width + self.fields.extra_width, options.width)
        self.unit = CAN(options.width, options.layers, options.activation, is_seq=True, is_stacked=False)
        self.network = Dense(self.fields.query_width, self.unit.item_dim)

    def forward(
        self, candidates: list[Tensor], behaviours: list[Tensor], behaviour_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The co-action with each candidate, and the steps."""
        query, keys = self.fields(candidates, behaviours)
        real = self.fields.mask(behaviour_mask)
        steps = self.steps(keys)
        networks = self.network(query)
        count = networks.size(1)
        tiled = steps.unsqueeze(1).expand(-1, count, -1, -1).flatten(0, 1)
        inside = real.unsqueeze(1).expand(-1, count, -1).flatten(0, 1)
        summed = self.unit(tiled, networks.flatten(0, 1), inside)
        real_steps = real.to(summed.dtype).sum(1).clamp_min(1.0)
        return summed.view(steps.size(0), count, self.width) / real_steps.unsqueeze(1).unsqueeze(2), steps

"""From the user side's tensors to one vector a user: what every uplift network starts from."""

import torch
from torch import Tensor, nn

from models.ctr.fields import NumberColumns
from models.inputs import InputLayout
from models.layers.embedding import FieldEmbedding
from models.layers.pooling import SequencePooling


class UserEncoder(nn.Module):
    """Embedded ids, numbers, and the mean of every behaviour field over its real steps, side by side.

    Shapes: user_ids (U, Fu), user_numbers (U, Nu), behaviour_ids (U, T, Fb), behaviour_numbers (U, T, Nb),
    behaviour_mask (U, T, S); returns (U, ``width``). An empty history gives zeros. State: embedding.tables.{i}.weight.

    Args:
        layout: of the input tensors.
        std: of the initial embeddings.
    """

    id_streams: list[int]
    number_columns: list[int]
    number_streams: list[int]

    def __init__(self, layout: InputLayout, std: float) -> None:
        super().__init__()
        self.embedding = FieldEmbedding(layout.tables, (layout.user_ids, layout.behaviour_ids), std)
        self.numbers = NumberColumns(layout.user_numbers)
        self.pooling = SequencePooling("avg")
        self.id_streams = [entry.stream for entry in layout.behaviour_ids]
        self.number_columns = [entry.column for entry in layout.behaviour_numbers]
        self.number_streams = [entry.stream for entry in layout.behaviour_numbers]
        dims = {table.name: table.dim for table in layout.tables}
        self.width = (
            sum(dims[entry.table] for entry in (*layout.user_ids, *layout.behaviour_ids))
            + len(layout.user_numbers)
            + len(layout.behaviour_numbers)
        )

    def forward(
        self,
        user_ids: Tensor,
        user_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_numbers: Tensor,
        behaviour_mask: Tensor,
    ) -> Tensor:
        """The users' vectors."""
        parts: list[Tensor] = self.embedding(user_ids, 0)
        parts.append(self.numbers(user_numbers))
        steps: list[Tensor] = self.embedding(behaviour_ids, 1)
        for i, vectors in enumerate(steps):
            parts.append(self.pooling(vectors, behaviour_mask[:, :, self.id_streams[i]]))
        for i, column in enumerate(self.number_columns):
            values = behaviour_numbers[:, :, column : column + 1]
            parts.append(self.pooling(values, behaviour_mask[:, :, self.number_streams[i]]))
        return torch.cat(parts, -1)

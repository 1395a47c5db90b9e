"""From the seven input tensors to the vectors of their fields."""

import torch
from torch import Tensor, nn

from models.inputs import IdField, InputLayout, NumberField
from models.layers.embedding import FieldEmbedding
from models.layers.history import joint_mask

USER, CANDIDATE, BEHAVIOUR = 0, 1, 2


class FieldReader(nn.Module):
    """Embeddings of all id fields, and behaviour numbers as vectors of width 1.

    Shapes: users: one (U, D) an id field; candidates: one (U, C, D) an id field; behaviours: one (U, T, D) an id field,
    then one (U, T, 1) a number field. State: embedding.tables.{i}.weight.

    Args:
        layout: of the input tensors.
        std: of the initial embeddings.
        dropout: of the embeddings, while training.
        dropped: names of the tables that lose elements; none means all.
    """

    number_columns: list[int]
    drops: list[list[bool]]

    def __init__(self, layout: InputLayout, std: float, dropout: float, dropped: tuple[str, ...] = ()) -> None:
        super().__init__()
        sides = (layout.user_ids, layout.candidate_ids, layout.behaviour_ids)
        self.embedding = FieldEmbedding(layout.tables, sides, std)
        self.dropout = nn.Dropout(dropout)
        self.drops = [[not dropped or entry.table in dropped for entry in entries] for entries in sides]
        self.number_columns = [entry.column for entry in layout.behaviour_numbers]

    def forward(
        self, user_ids: Tensor, candidate_ids: Tensor, behaviour_ids: Tensor, behaviour_numbers: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Vectors of the users', the candidates' and the behaviours' fields."""
        users = self._embed(user_ids, 0)
        candidates = self._embed(candidate_ids, 1)
        behaviours = self._embed(behaviour_ids, 2)
        for column in self.number_columns:
            behaviours.append(behaviour_numbers[:, :, column : column + 1])
        return users, candidates, behaviours

    def behaviours(self, behaviour_ids: Tensor) -> list[Tensor]:
        """Vectors of behaviour id fields alone, for negatives."""
        return self._embed(behaviour_ids, 2)

    def _embed(self, ids: Tensor, side: int) -> list[Tensor]:
        vectors: list[Tensor] = self.embedding(ids, side)
        if not self.training:
            return vectors
        return [self.dropout(vector) if self.drops[side][i] else vector for i, vector in enumerate(vectors)]


class NumberColumns(nn.Module):
    """The number fields of a side as one tensor.

    Shapes: numbers (..., N); returns (..., number of fields).
    """

    columns: list[int]

    def __init__(self, fields: tuple[NumberField, ...]) -> None:
        super().__init__()
        self.columns = [entry.column for entry in fields]
        # The usual case costs one slice.
        self.in_order = self.columns == list(range(len(self.columns)))

    def forward(self, numbers: Tensor) -> Tensor:
        """The chosen columns."""
        if self.in_order:
            return numbers[..., : len(self.columns)]
        return torch.stack([numbers[..., column] for column in self.columns], -1)


class PairedFields(nn.Module):
    """Query and keys of an attention group: its pairs' candidate and history vectors, side by side.

    Shapes: query (U, C, Q), keys (U, T, Q), extras (U, T, E), mask (U, T).

    Args:
        layout: of the input tensors.
        candidates: names of the candidate fields.
        histories: names of the history fields, pair by pair.
        extras: names of behaviour fields without a partner.

    Raises:
        ValueError: if the two fields of a pair have embeddings of different widths.
    """

    query_fields: list[int]
    key_fields: list[int]
    extra_fields: list[int]
    streams: list[int]

    def __init__(
        self, layout: InputLayout, candidates: tuple[str, ...], histories: tuple[str, ...], extras: tuple[str, ...]
    ) -> None:
        super().__init__()
        places = Places(layout)
        self.query_fields = [places.candidates[name] for name in candidates]
        self.key_fields = [places.behaviours[name] for name in histories]
        self.extra_fields = [places.behaviours[name] for name in extras]
        self.streams = sorted({places.streams[name] for name in (*histories, *extras)})
        for candidate, history in zip(candidates, histories, strict=True):
            if places.dims[candidate] != places.history_dims[history]:
                raise ValueError(
                    f"candidate field {candidate!r} and history field {history!r} must have embeddings of one width, "
                    f"got {places.dims[candidate]} and {places.history_dims[history]}"
                )
        self.query_width = sum(places.dims[name] for name in candidates)
        self.extra_width = sum(places.history_dims[name] for name in extras)

    def query(self, candidates: list[Tensor]) -> Tensor:
        """(U, C, Q)."""
        return torch.cat([candidates[i] for i in self.query_fields], -1)

    def keys(self, behaviours: list[Tensor]) -> Tensor:
        """(U, T, Q)."""
        return torch.cat([behaviours[i] for i in self.key_fields], -1)

    def extras(self, behaviours: list[Tensor]) -> Tensor:
        """(U, T, E)."""
        return torch.cat([behaviours[i] for i in self.extra_fields], -1)

    def mask(self, behaviour_mask: Tensor) -> Tensor:
        """(U, T): real for every field of the group."""
        return joint_mask(behaviour_mask, self.streams)

    def forward(self, candidates: list[Tensor], behaviours: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Query, and keys with the extras beside them."""
        keys = self.keys(behaviours)
        if len(self.extra_fields) > 0:
            keys = torch.cat([keys, self.extras(behaviours)], -1)
        return self.query(candidates), keys


class Places:
    """Where fields stand in the lists of ``FieldReader``, and how wide they are; by name."""

    def __init__(self, layout: InputLayout) -> None:
        dims = {table.name: table.dim for table in layout.tables}
        self.users = {entry.name: i for i, entry in enumerate(layout.user_ids)}
        self.candidates = {entry.name: i for i, entry in enumerate(layout.candidate_ids)}
        behaviours: tuple[IdField | NumberField, ...] = (*layout.behaviour_ids, *layout.behaviour_numbers)
        self.behaviours = {entry.name: i for i, entry in enumerate(behaviours)}
        self.streams = {entry.name: entry.stream for entry in behaviours}
        self.user_dims = {entry.name: dims[entry.table] for entry in layout.user_ids}
        self.dims = {entry.name: dims[entry.table] for entry in layout.candidate_ids}
        self.history_dims = {entry.name: dims[entry.table] for entry in layout.behaviour_ids}
        self.history_dims.update({entry.name: 1 for entry in layout.behaviour_numbers})

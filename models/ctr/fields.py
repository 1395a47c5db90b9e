"""From the seven input tensors to the vectors of their fields."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.ctr.search import EmbeddingSearch, TableSearch
from models.inputs import IdField, InputLayout, NumberField
from models.layers.embedding import FieldEmbedding
from models.layers.history import joint_mask

USER, CANDIDATE, BEHAVIOUR = 0, 1, 2


class Inputs(NamedTuple):
    """The seven tensors of ``models.inputs``, passed on as one."""

    user_ids: Tensor
    user_numbers: Tensor
    candidate_ids: Tensor
    candidate_numbers: Tensor
    behaviour_ids: Tensor
    behaviour_numbers: Tensor
    behaviour_mask: Tensor


class Vectors(NamedTuple):
    """What ``FieldReader`` makes of them.

    Shapes: users: one (U, D) an id field; candidates: one (U, C, D) an id field; behaviours: one (U, T, D) an id field,
    then one (U, T, 1) a number field; scales: one (D,) a table while widths are searched for, else none.
    """

    users: list[Tensor]
    candidates: list[Tensor]
    behaviours: list[Tensor]
    scales: list[Tensor]


class FieldReader(nn.Module):
    """Embeddings of all id fields, and behaviour numbers as vectors of width 1.

    Shapes: as ``Inputs`` and ``Vectors``. State: embedding.tables.{i}.weight; with ``search`` search.*.

    Args:
        layout: of the input tensors.
        std: of the initial embeddings.
        dropout: of the embeddings, while training.
        dropped: names of the tables that lose elements; none means all.
        search: which widths the tables may get; None gives them all of theirs.
    """

    number_columns: list[int]
    drops: list[list[bool]]
    table_of: list[list[int]]
    pads: list[list[list[int]]]

    def __init__(
        self,
        layout: InputLayout,
        std: float,
        dropout: float,
        dropped: tuple[str, ...] = (),
        search: EmbeddingSearch | None = None,
    ) -> None:
        super().__init__()
        sides = (layout.user_ids, layout.candidate_ids, layout.behaviour_ids)
        self.embedding = FieldEmbedding(layout.tables, sides, std)
        self.dropout = nn.Dropout(dropout)
        self.drops = [[not dropped or entry.table in dropped for entry in entries] for entries in sides]
        self.number_columns = [entry.column for entry in layout.behaviour_numbers]
        places = {table.name: i for i, table in enumerate(layout.tables)}
        self.table_of = [[places[entry.table] for entry in entries] for entries in sides]
        self.pads = [[[0, 0] for _ in entries] for entries in sides]
        self.search: TableSearch | None = None if search is None else TableSearch(search, layout.tables)

    def forward(self, inputs: Inputs) -> Vectors:
        """Vectors of the users', the candidates' and the behaviours' fields."""
        # One draw of the widths for all fields of a step, so that queries and keys stay comparable.
        scales: list[Tensor] = []
        if self.search is not None:
            scales = self.search()
        users = self._embed(inputs.user_ids, 0, scales)
        candidates = self._embed(inputs.candidate_ids, 1, scales)
        behaviours = self._embed(inputs.behaviour_ids, 2, scales)
        for column in self.number_columns:
            behaviours.append(inputs.behaviour_numbers[:, :, column : column + 1])
        return Vectors(users, candidates, behaviours, scales)

    def behaviours(self, behaviour_ids: Tensor, scales: list[Tensor]) -> list[Tensor]:
        """Vectors of behaviour id fields alone, for negatives; ``scales`` of the positives."""
        return self._embed(behaviour_ids, 2, scales)

    def _embed(self, ids: Tensor, side: int, scales: list[Tensor]) -> list[Tensor]:
        vectors: list[Tensor] = self.embedding(ids, side)
        if len(scales) > 0:
            vectors = [vector * scales[self.table_of[side][i]] for i, vector in enumerate(vectors)]
        if not self.training:
            padded: list[Tensor] = []
            for i, vector in enumerate(vectors):
                pad = self.pads[side][i]
                padded.append(F.pad(vector, pad) if pad[0] + pad[1] > 0 else vector)
            return padded
        return [self.dropout(vector) if self.drops[side][i] else vector for i, vector in enumerate(vectors)]

    def finalize(self) -> None:
        """Fix the widths that were found: tables keep their columns alone, the others are zeros from now on.

        For evaluation and export; a network cannot be trained or loaded after it.
        """
        if self.search is None:
            return
        scales = self.search.eval()()
        pads: list[list[int]] = []
        for place, scale in enumerate(scales):
            self.embedding.tables[place], pad = narrowed(self.embedding.tables[place], scale)
            pads.append(pad)
        self.pads = [[pads[place] for place in places] for places in self.table_of]
        self.search = None


def narrowed(table: nn.Module, scale: Tensor) -> tuple[nn.Embedding, list[int]]:
    """A table times the scales of its columns, without the zeros at either end, and how many those were.

    A table without any column keeps one of zeros: runtimes dislike empty tensors.
    """
    weight = table.get_parameter("weight").detach() * scale.detach()
    kept = scale.detach().nonzero().flatten().tolist() or [0]
    first, stop = int(kept[0]), int(kept[-1]) + 1
    narrow = nn.Embedding(weight.size(0), stop - first, padding_idx=0, _weight=weight[:, first:stop].clone())
    return narrow, [first, weight.size(1) - stop]


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

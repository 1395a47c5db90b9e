"""Everything around the attention: reading the fields, pooled histories, the top network, the linear part."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from models.ctr.config import SequenceConfig
from models.ctr.fields import FieldReader, NumberColumns, Places
from models.ctr.tower import UserCandidateTower, WidePart
from models.inputs import IdField, NumberField, Table
from models.layers.embedding import FieldEmbedding
from models.layers.fold_in import USER_NUMBERS, FoldedHistory, FoldIn, FoldInPlaces
from models.layers.history import HistoryPooling, PooledHistory


class Frame(nn.Module):
    """The parts that do not depend on the kind of attention.

    Letters: U users, C candidates, T steps, K tasks, W the summed width of the attention groups' interests.

    Args:
        config: of the network.
        interest_width: W.
    """

    user_fields: list[int]
    candidate_fields: list[int]

    def __init__(self, config: SequenceConfig, interest_width: int) -> None:
        super().__init__()
        layout, places = config.layout, Places(config.layout)
        self.reader = FieldReader(
            layout, config.embedding_std, config.embedding_dropout, config.embedding_dropout_tables
        )
        excluded = set(config.mlp_excludes)
        self.user_fields = [i for i, entry in enumerate(layout.user_ids) if entry.name not in excluded]
        self.candidate_fields = [i for i, entry in enumerate(layout.candidate_ids) if entry.name not in excluded]
        self.user_numbers = NumberColumns(_kept(layout.user_numbers, excluded))
        self.candidate_numbers = NumberColumns(_kept(layout.candidate_numbers, excluded))
        self.pooled = nn.ModuleList(_pooled(entry, places) for entry in config.history_pooling)
        self.folded = nn.ModuleList(_folded(entry, config, places) for entry in config.fold_in)
        user_width, candidate_width = _widths(config, places)
        self.tower = UserCandidateTower(
            user_width,
            candidate_width + interest_width,
            config.mlp_hidden_layers,
            len(config.tasks),
            config.mlp_activation,
            config.mlp_dropout,
            config.mlp_batchnorm,
            config.input_norm,
        )
        self.wide = _wide_part(config) if config.wide else None

    def read(
        self, user_ids: Tensor, candidate_ids: Tensor, behaviour_ids: Tensor, behaviour_numbers: Tensor
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Vectors of the fields, as ``FieldReader`` gives them."""
        users, candidates, behaviours = self.reader(user_ids, candidate_ids, behaviour_ids, behaviour_numbers)
        return users, candidates, behaviours

    def forward(
        self,
        vectors: tuple[list[Tensor], list[Tensor], list[Tensor]],
        interests: list[Tensor],
        user_ids: Tensor,
        user_numbers: Tensor,
        candidate_ids: Tensor,
        candidate_numbers: Tensor,
        behaviour_ids: Tensor,
        behaviour_mask: Tensor,
    ) -> Tensor:
        """Logits (U, C, K) from the fields' vectors and the interests (U, C, ...) of the attention groups."""
        users, candidates, behaviours = vectors
        of_user = [users[i] for i in self.user_fields]
        of_candidate = [candidates[i] for i in self.candidate_fields]
        for pooling in self.pooled:
            history, product = pooling(candidates, behaviours, behaviour_mask)
            of_user.append(history)
            of_candidate.append(product)
        direct: list[Tensor] = []
        for fold in self.folded:
            features, about, scores = fold(candidates, behaviours, candidate_ids, behaviour_ids, behaviour_mask)
            of_candidate.append(features)
            of_user.append(about)
            direct.append(scores)
        of_user.append(self.user_numbers(user_numbers))
        of_candidate.append(self.candidate_numbers(candidate_numbers))
        of_candidate.extend(interests)
        logits: Tensor = self.tower(_join(of_user), _join(of_candidate))
        for scores in direct:
            logits = logits + scores
        if self.wide is not None:
            logits = logits + self.wide(
                user_ids,
                self.user_numbers(user_numbers),
                candidate_ids,
                self.candidate_numbers(candidate_numbers),
            )
        return logits


def _join(vectors: list[Tensor]) -> Tensor:
    # Sides without columns stay out of the graph.
    filled: list[Tensor] = []
    for vector in vectors:
        if vector.size(-1) > 0:
            filled.append(vector)
    if len(filled) == 0:
        return vectors[0]
    return torch.cat(filled, -1)


def _pooled(entry: HistoryPooling, places: Places) -> PooledHistory:
    partner = -1 if entry.candidate is None else places.candidates[entry.candidate]
    return PooledHistory(entry, places.behaviours[entry.history], places.streams[entry.history], partner)


def _folded(entry: FoldIn, config: SequenceConfig, places: Places) -> FoldedHistory:
    layout = config.layout
    behaviours = {field.name: field for field in layout.behaviour_ids}
    candidates = {field.name: field for field in layout.candidate_ids}
    found = FoldInPlaces(
        candidate=candidates[entry.candidate],
        history=behaviours[entry.history],
        level=None if entry.level is None else behaviours[entry.level],
        tables={table.name: table for table in layout.tables},
        candidate_vector=places.candidates[entry.candidate],
        history_vector=places.behaviours[entry.history],
        value=-1 if entry.value is None else places.behaviours[entry.value],
    )
    if found.candidate.table != found.history.table:
        raise ValueError(
            f"fold_in: {entry.candidate!r} and {entry.history!r} must share one table, "
            f"got {found.candidate.table!r} and {found.history.table!r}"
        )
    streams = {places.streams[name] for name in (entry.history, entry.value, entry.level) if name is not None}
    return FoldedHistory(entry, found, sorted(streams), places.dims[entry.candidate], len(config.tasks))


def _kept(fields: tuple[NumberField, ...], excluded: set[str]) -> tuple[NumberField, ...]:
    return tuple(entry for entry in fields if entry.name not in excluded)


def _widths(config: SequenceConfig, places: Places) -> tuple[int, int]:
    """Widths of the user's and the candidate's input of the top network, without the interests."""
    layout, excluded = config.layout, set(config.mlp_excludes)
    user = sum(dim for name, dim in places.user_dims.items() if name not in excluded)
    user += len(_kept(layout.user_numbers, excluded))
    candidate = sum(dim for name, dim in places.dims.items() if name not in excluded)
    candidate += len(_kept(layout.candidate_numbers, excluded))
    for pooling in config.history_pooling:
        width = places.history_dims[pooling.history]
        user += width
        if pooling.candidate is not None:
            if places.dims[pooling.candidate] != width:
                raise ValueError(
                    f"history_pooling: {pooling.candidate!r} and {pooling.history!r} must have embeddings of one "
                    f"width, got {places.dims[pooling.candidate]} and {width}"
                )
            candidate += width
    for fold in config.fold_in:
        user += USER_NUMBERS
        candidate += places.dims[fold.candidate] + 1
    return user, candidate


def _wide_part(config: SequenceConfig) -> WidePart:
    layout, tasks, excluded = config.layout, len(config.tasks), set(config.mlp_excludes)
    rows = {table.name: table.rows for table in layout.tables}
    tables: list[Table] = []
    sides: list[list[IdField]] = []
    # A bias table for every field: an id may mean something else as a user's and as a candidate's.
    for side, entries in (("user", layout.user_ids), ("candidate", layout.candidate_ids)):
        own = [replace(entry, table=f"{side}/{entry.name}") for entry in entries if entry.name not in excluded]
        kept = [entry for entry in entries if entry.name not in excluded]
        tables += [Table(name=f"{side}/{entry.name}", rows=rows[entry.table], dim=tasks) for entry in kept]
        sides.append(own)
    biases = FieldEmbedding(tables, sides, std=0.0)
    numbers = (_kept(layout.user_numbers, excluded), _kept(layout.candidate_numbers, excluded))
    return WidePart(biases, len(numbers[0]), len(numbers[1]), tasks)

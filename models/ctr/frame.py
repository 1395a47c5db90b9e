"""Everything around the attention: reading the fields, pooled histories, the top network, the linear part."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from models.ctr.config import SequenceConfig
from models.ctr.crossing import Crossing
from models.ctr.fields import FieldReader, Inputs, NumberColumns, Places, Vectors
from models.ctr.tower import MultiTaskTower, UserCandidateTower, WidePart, input_width
from models.inputs import IdField, NumberField, Table
from models.layers.embedding import FieldEmbedding
from models.layers.fold_in import USER_NUMBERS, FoldedHistory, FoldIn, FoldInPlaces
from models.layers.history import HistoryPooling, PooledHistory
from models.multitask import MLPOptions, build_top


class Frame(nn.Module):
    """The parts that do not depend on the kind of attention.

    Letters: U users, C candidates, T steps, K tasks.

    Args:
        config: of the network.
        interest_widths: of the interests, (U, C, width) each.

    Raises:
        ValueError: if fields do not fit each other, or there are none.
    """

    user_fields: list[int]
    candidate_fields: list[int]

    def __init__(self, config: SequenceConfig, interest_widths: Sequence[int]) -> None:
        super().__init__()
        layout, places = config.layout, Places(config.layout)
        self.reader = FieldReader(
            layout, config.embedding_std, config.embedding_dropout, config.embedding_dropout_tables, config.nas
        )
        excluded = set(config.mlp_excludes)
        self.user_fields = [i for i, entry in enumerate(layout.user_ids) if entry.name not in excluded]
        self.candidate_fields = [i for i, entry in enumerate(layout.candidate_ids) if entry.name not in excluded]
        self.user_numbers = NumberColumns(_kept(layout.user_numbers, excluded))
        self.candidate_numbers = NumberColumns(_kept(layout.candidate_numbers, excluded))
        self.pooled = nn.ModuleList(_pooled(entry, places) for entry in config.history_pooling)
        self.folded = nn.ModuleList(_folded(entry, config, places) for entry in config.fold_in)
        widths = _widths(config, places, interest_widths)
        numbers = (len(self.user_numbers.columns), len(self.candidate_numbers.columns))
        self.crossing: Crossing | None = None
        if config.crossing:
            self.crossing = Crossing(config.crossing, widths, numbers, config.cross_dim, config.embedding_std)
        crossed = 0 if self.crossing is None else self.crossing.width
        self.tower = _tower(config, sum(widths[0]) + numbers[0], sum(widths[1]) + numbers[1] + crossed)
        self.wide = _wide_part(config) if config.wide else None

    def read(self, inputs: Inputs) -> Vectors:
        """Vectors of the fields, as ``FieldReader`` gives them."""
        vectors: Vectors = self.reader(inputs)
        return vectors

    def forward(self, inputs: Inputs, vectors: Vectors, interests: list[Tensor]) -> Tensor:
        """Logits (U, C, K) from the fields' vectors and the interests (U, C, ...) of the attention groups."""
        user, candidate, direct = self._joined(inputs, vectors, interests)
        logits: Tensor = self.tower(user, candidate)
        return self._with_direct(inputs, logits, direct)

    def training_outputs(self, inputs: Inputs, vectors: Vectors, interests: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The same, and the auxiliary loss of the top, a scalar."""
        user, candidate, direct = self._joined(inputs, vectors, interests)
        logits, auxiliary = self.tower.training_outputs(user, candidate)
        return self._with_direct(inputs, logits, direct), auxiliary

    def _joined(self, inputs: Inputs, vectors: Vectors, interests: list[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Input of the top network for the users and for the candidates, and logits that pass it by."""
        users, candidates, behaviours = vectors.users, vectors.candidates, vectors.behaviours
        of_user = [users[i] for i in self.user_fields]
        of_candidate = [candidates[i] for i in self.candidate_fields]
        for pooling in self.pooled:
            history, product = pooling(candidates, behaviours, inputs.behaviour_mask)
            of_user.append(history)
            of_candidate.append(product)
        direct: list[Tensor] = []
        for fold in self.folded:
            features, about, scores = fold(
                candidates, behaviours, inputs.candidate_ids, inputs.behaviour_ids, inputs.behaviour_mask
            )
            of_candidate.append(features)
            of_user.append(about)
            direct.append(scores)
        of_candidate.extend(interests)
        user_numbers = self.user_numbers(inputs.user_numbers)
        candidate_numbers = self.candidate_numbers(inputs.candidate_numbers)
        # Numbers before interests: the order of the columns that trained weights know.
        ordered = of_candidate[: len(of_candidate) - len(interests)]
        ordered.append(candidate_numbers)
        ordered.extend(interests)
        user, candidate = _join(of_user + [user_numbers]), _join(ordered)  # noqa: RUF005 - a starred list does not script
        if self.crossing is not None:
            crossed = self.crossing(of_user, of_candidate, user_numbers, candidate_numbers, user, candidate)
            candidate = _join([candidate, crossed])
        return user, candidate, direct

    def _with_direct(self, inputs: Inputs, logits: Tensor, direct: list[Tensor]) -> Tensor:
        for scores in direct:
            logits = logits + scores
        if self.wide is not None:
            logits = logits + self.wide(
                inputs.user_ids,
                self.user_numbers(inputs.user_numbers),
                inputs.candidate_ids,
                self.candidate_numbers(inputs.candidate_numbers),
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


def _widths(config: SequenceConfig, places: Places, interests: Sequence[int]) -> tuple[list[int], list[int]]:
    """Widths of the user's and the candidate's vectors in the input of the top network, without the numbers."""
    excluded = set(config.mlp_excludes)
    user = [dim for name, dim in places.user_dims.items() if name not in excluded]
    candidate = [dim for name, dim in places.dims.items() if name not in excluded]
    for pooling in config.history_pooling:
        width = places.history_dims[pooling.history]
        user.append(width)
        if pooling.candidate is not None and places.dims[pooling.candidate] != width:
            raise ValueError(
                f"history_pooling: {pooling.candidate!r} and {pooling.history!r} must have embeddings of one "
                f"width, got {places.dims[pooling.candidate]} and {width}"
            )
        candidate.append(0 if pooling.candidate is None else width)
    for fold in config.fold_in:
        user.append(USER_NUMBERS)
        candidate.append(places.dims[fold.candidate] + 1)
    return user, [*candidate, *interests]


def _tower(config: SequenceConfig, user: int, candidate: int) -> UserCandidateTower | MultiTaskTower:
    if not isinstance(config.top, MLPOptions):
        top = build_top(config.top, input_width(user, candidate), config.hidden, config.tasks)
        return MultiTaskTower(user, candidate, top, config.input_norm)
    return UserCandidateTower(
        user,
        candidate,
        config.mlp_hidden_layers,
        len(config.tasks),
        config.mlp_activation,
        config.mlp_dropout,
        config.mlp_batchnorm,
        config.input_norm,
    )


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

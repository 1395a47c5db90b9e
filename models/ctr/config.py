"""The options that all sequence networks for click prediction share."""

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from typing import Any, Self

from models.ctr.blocks import blocks_to_dict, plain, read_blocks
from models.ctr.crossing_options import CROSSINGS
from models.ctr.search import EmbeddingSearch
from models.inputs import InputLayout
from models.layers.attention_group import AttentionGroup
from models.layers.fold_in import FoldIn
from models.layers.history import HistoryPooling, build
from models.multitask.options import MLPOptions, TopOptions, read_top, top_to_dict
from models.multitask.towers import HiddenOptions


@dataclass(frozen=True, kw_only=True, slots=True)
class SequenceConfig:
    """What goes into the network and how the parts around the attention are built.

    Attributes:
        layout: the input tensors.
        tasks: one logit each, in this order.
        attention_groups: which candidate fields attend to which history fields.
        mlp_hidden_layers: of the top network; none makes it linear.
        mlp_activation: of the top network.
        mlp_dropout: of the top network.
        mlp_batchnorm: in the top network.
        embedding_dropout: of the embeddings, while training.
        embedding_dropout_tables: the tables it holds for; none means all.
        embedding_std: of the initial embeddings.
        history_pooling: histories pooled without attention.
        fold_in: item models folded in from the history.
        mlp_excludes: user or candidate fields that only serve attention, pooling or fold-in.
        input_norm: normalise what enters the top network, row by row.
        wide: add a linear part over all numbers and a bias for every user and candidate id.
        top: what turns the features into one logit a task: ``mlp`` (one network for all), ``shared_bottom``, ``mmoe``
            or ``snr``; a name, or a mapping with ``kind`` and the options of that kind.
        crossing: blocks that cross the features before the top, by name; a list, or a mapping of names to options.
        cross_dim: width of the fields that they cross.
        nas: search the widths of the embeddings while training; None takes those of the tables.

    Raises:
        ValueError: if a task or a group is used twice, a share is outside [0, 1), a block is unknown, or a name is not
            in the layout.
    """

    layout: InputLayout
    tasks: tuple[str, ...] = ("ctr",)
    attention_groups: tuple[AttentionGroup, ...] = ()
    mlp_hidden_layers: tuple[int, ...] = (200, 80)
    mlp_activation: str = "prelu"
    mlp_dropout: float = 0.0
    mlp_batchnorm: bool = False
    embedding_dropout: float = 0.0
    embedding_dropout_tables: tuple[str, ...] = ()
    embedding_std: float = 0.05
    history_pooling: tuple[HistoryPooling, ...] = ()
    fold_in: tuple[FoldIn, ...] = ()
    mlp_excludes: tuple[str, ...] = ()
    input_norm: bool = False
    wide: bool = False
    top: TopOptions = field(default_factory=MLPOptions)
    crossing: Mapping[str, Any] = field(default_factory=dict)
    cross_dim: int = 8
    nas: EmbeddingSearch | None = None

    def __post_init__(self) -> None:
        """Check values and names."""
        for name in _TUPLES:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "top", read_top(self.top))
        object.__setattr__(self, "crossing", read_blocks("crossing", self.crossing, CROSSINGS))
        if self.cross_dim < 1:
            raise ValueError(f"cross_dim must be at least 1, got {self.cross_dim}")
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise ValueError(f"tasks must be different names, at least one; got {self.tasks}")
        for name in ("mlp_dropout", "embedding_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        names = [group.name for group in self.attention_groups]
        if len(set(names)) != len(names):
            raise ValueError(f"attention_groups must have different names, got {names}")
        self._check_names()

    def _check_names(self) -> None:
        layout = self.layout
        candidates = {entry.name for entry in layout.candidate_ids}
        histories = {entry.name for entry in layout.behaviour_ids}
        numbers = {entry.name for entry in layout.behaviour_numbers}
        excludable = {entry.name for entry in (*layout.user_ids, *layout.candidate_ids)}
        excludable |= {entry.name for entry in (*layout.user_numbers, *layout.candidate_numbers)}
        tables = {table.name for table in layout.tables}
        _check_known("embedding_dropout_tables: table", self.embedding_dropout_tables, tables)
        for group in self.attention_groups:
            where = f"attention group {group.name!r}"
            _check_known(f"{where}: candidate field", group.candidates, candidates)
            _check_known(f"{where}: history field", group.histories, histories)
            _check_known(f"{where}: extra", group.extras, histories | numbers)
        for pooling in self.history_pooling:
            _check_known("history_pooling: history field", (pooling.history,), histories)
            if pooling.candidate is not None:
                _check_known("history_pooling: candidate field", (pooling.candidate,), candidates)
        for fold in self.fold_in:
            _check_known("fold_in: history field", (fold.history,), histories)
            _check_known("fold_in: candidate field", (fold.candidate,), candidates)
            if fold.value is not None:
                _check_known("fold_in: value", (fold.value,), numbers)
            if fold.level is not None:
                _check_known("fold_in: level", (fold.level,), histories)
        _check_known("mlp_excludes: field", self.mlp_excludes, excludable)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        values: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.name == "top":
                values[entry.name] = top_to_dict(value)
            elif hasattr(value, "to_dict"):
                values[entry.name] = value.to_dict()
            elif isinstance(value, Mapping):
                values[entry.name] = blocks_to_dict(value)
            elif is_dataclass(value):
                values[entry.name] = plain(value)
            elif isinstance(value, tuple):
                values[entry.name] = [item.to_dict() if hasattr(item, "to_dict") else item for item in value]
            else:
                values[entry.name] = value
        return values

    @property
    def hidden(self) -> HiddenOptions:
        """The hidden layers of the top network."""
        return HiddenOptions(
            layers=self.mlp_hidden_layers,
            activation=self.mlp_activation,
            dropout=self.mlp_dropout,
            batchnorm=self.mlp_batchnorm,
        )

    @classmethod
    def single_options(cls) -> dict[str, type[Any]]:
        """Attributes that are objects of a class of their own, read from a mapping."""
        return {"nas": EmbeddingSearch}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of ``to_dict``.

        Raises:
            ValueError: naming the key that is unknown, missing or holds something unfit.
        """
        known = {entry.name for entry in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ValueError(f"unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")
        for entry in fields(cls):
            if entry.default is MISSING and entry.default_factory is MISSING and entry.name not in values:
                raise ValueError(f"missing key {entry.name!r}")
        arguments: dict[str, Any] = dict(values)
        if not isinstance(arguments["layout"], InputLayout):
            arguments["layout"] = InputLayout.from_dict(arguments["layout"])
        for name, kind in _DESCRIPTIONS.items():
            if name in arguments:
                arguments[name] = tuple(
                    item if isinstance(item, kind) else build(kind, item, f"{name}.{index}")
                    for index, item in enumerate(arguments[name])
                )
        for name, kind in cls.single_options().items():
            if isinstance(arguments.get(name), Mapping):
                arguments[name] = build(kind, arguments[name], name)
        for name in _TUPLES:
            if isinstance(arguments.get(name), str):
                raise ValueError(f"{name} must be a list, got {arguments[name]!r}")
        return cls(**arguments)


_DESCRIPTIONS: dict[str, type[Any]] = {
    "attention_groups": AttentionGroup,
    "history_pooling": HistoryPooling,
    "fold_in": FoldIn,
}
_TUPLES = (
    "tasks",
    "attention_groups",
    "mlp_hidden_layers",
    "embedding_dropout_tables",
    "history_pooling",
    "fold_in",
    "mlp_excludes",
)


def _check_known(what: str, names: Sequence[str], known: set[str]) -> None:
    for name in names:
        if name not in known:
            raise ValueError(f"{what} must be one of {sorted(known)}, got {name!r}")

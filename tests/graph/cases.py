"""The networks that are exported: every evolution, attention and option at least once."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from torch import nn

from models.catalog import CATALOG, tiny_layout
from models.ctr import DIENConfig, DIENModel, DINConfig, DINModel
from models.inputs import IdField, InputLayout, NumberField, Table
from models.layers import AttentionGroup
from models.layers.fold_in import FoldIn
from models.layers.history import HistoryPooling

PAIRS = ({"ad": "item", "pos_hist": "hist_item"}, {"ad": "genres", "pos_hist": "hist_genres"})
EVERYTHING: Final = {
    "history_pooling": (
        HistoryPooling(history="hist_item", mode="avg", candidate="item"),
        HistoryPooling(history="hist_type", mode="sum"),
        HistoryPooling(history="hist_genres", mode="max"),
        HistoryPooling(history="hist_item", mode="recent", half_life=2.0),
    ),
    "fold_in": (
        FoldIn(history="hist_item", candidate="item", value="hist_value", level="hist_type", baseline=True),
        FoldIn(history="hist_genres", candidate="genres"),
    ),
    "wide": True,
    "tasks": ("ctr", "cvr"),
    "input_norm": True,
    "mlp_batchnorm": True,
    "mlp_activation": "dice",
    "mlp_excludes": ("age",),
    "embedding_dropout": 0.2,
}


def dien(gru: str, attention: str, activation: str = "dice", **options: Any) -> DIENConfig:
    group_options = {
        name: options.pop(name) for name in ("batchnorm", "hidden_size", "pairs", "extras") if name in options
    }
    pairs = group_options.pop("pairs", PAIRS)
    group_options.setdefault("extras", ("hist_type",))
    group = AttentionGroup("g", pairs, (6, 4), activation, gru_type=gru, attention=attention, **group_options)
    return DIENConfig(
        layout=options.pop("layout", tiny_layout()), attention_groups=(group,), mlp_hidden_layers=(8, 4), **options
    )


def din(mode: str, **options: Any) -> DINConfig:
    return replace(CATALOG["din"].tiny(), attention_mode=mode, **options)


def bare_layout() -> InputLayout:
    """One table, one pair, two streams, nothing on the user's side."""
    return InputLayout(
        tables=(Table(name="item", rows=20, dim=4),),
        candidate_ids=(IdField(name="item", table="item", column=0),),
        behaviour_ids=(
            IdField(name="clicked", table="item", column=0),
            IdField(name="bought", table="item", column=1, stream=1),
        ),
        behaviour_numbers=(NumberField(name="age", column=0),),
        streams=2,
    )


def two_groups() -> DIENConfig:
    groups = (
        AttentionGroup("clicks", [{"ad": "item", "pos_hist": "clicked"}], (5,), "prelu", extras=("age",)),
        AttentionGroup("orders", [{"ad": "item", "pos_hist": "bought"}], (5,), "relu", gru_type="AGRU"),
    )
    return DIENConfig(layout=bare_layout(), attention_groups=groups, mlp_hidden_layers=())


CASES: Final[Mapping[str, tuple[Callable[[Any], nn.Module], Any]]] = {
    "din-sum": (DINModel, din("sum")),
    "din-softmax-everything": (DINModel, din("softmax", **EVERYTHING)),
    "dien-gru-mlp": (DIENModel, dien("GRU", "mlp", "prelu")),
    "dien-gru-bilinear": (DIENModel, dien("GRU", "bilinear")),
    "dien-aigru-mlp": (DIENModel, dien("AIGRU", "mlp", "sigmoid")),
    "dien-aigru-bilinear": (DIENModel, dien("AIGRU", "bilinear")),
    "dien-agru-mlp": (DIENModel, dien("AGRU", "mlp")),
    "dien-agru-bilinear": (DIENModel, dien("AGRU", "bilinear", hidden_size=5)),
    "dien-augru-mlp": (DIENModel, dien("AUGRU", "mlp", extras=("hist_type", "hist_value"), hidden_size=6)),
    "dien-augru-bilinear": (DIENModel, dien("AUGRU", "bilinear", use_negsampling=True)),
    "dien-augru-everything": (DIENModel, dien("AUGRU", "mlp", batchnorm=True, **EVERYTHING)),
    "dien-two-groups": (DIENModel, two_groups()),
}

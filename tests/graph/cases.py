"""The networks that are exported: every evolution, attention and option at least once."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from torch import nn

from models.catalog import CATALOG, tiny_layout
from models.ctr import CTRConfig, CTRModel, DIENConfig, DIENModel, DINConfig, DINModel, DSINConfig, DSINModel
from models.ctr.search import EmbeddingSearch
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


def dsin(**options: Any) -> DSINConfig:
    return replace(CATALOG["dsin"].tiny(), **options)


def composed(**options: Any) -> CTRConfig:
    plain = {**CATALOG["ctr"].tiny().to_dict(), "sequence": [], "crossing": [], **options}
    return CTRConfig.from_dict(plain)


def features_only(*sides: str) -> InputLayout:
    """A layout of tables without item and history: the user's side, the candidate's side, or both."""
    empty: dict[str, Any] = {"behaviour_ids": (), "behaviour_numbers": ()}
    for side in {"user", "candidate"} - set(sides):
        empty |= {f"{side}_ids": (), f"{side}_numbers": ()}
    return replace(tiny_layout(), **empty)


TWO = ("ctr", "cvr")
SESSION = {"gap": "hist_value", "gap_seconds": 0.5, "sessions": 2, "length": 3}
ALL_BLOCKS = {"din": {"mode": "sum"}, "dien": {}, "dsin": SESSION, "dmr": {"length": 4}, "can": {}, "pooling": {}}
ALL_CROSSINGS = {
    "dcn": {"layers": 2, "type": "mixed", "experts": 2, "rank": 3, "dropout": 0.1},
    "cin": {"layers": [3, 2], "activation": "relu"},
    "autoint": {"layers": 1},
    "senet": {},
    "bilinear": {"product": "multiply"},
    "group_int": {"product": "multiply"},
    "all_int": {"compressed": 2},
    "cdot": {"projected": 2, "layers": [4]},
}
CENSUS = {"attention_groups": [], "crossing": {"dcn": {"type": "vector"}}, "wide": True, "input_norm": True}
MMOE = {"kind": "mmoe", "experts": 3, "tower_layers": [4]}

CLASSIC: Final[Mapping[str, tuple[Callable[[Any], nn.Module], Any]]] = {
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
COMPOSED: Final[Mapping[str, tuple[Callable[[Any], nn.Module], Any]]] = {
    **{name: (CTRModel, CATALOG[name].tiny()) for name in sorted(CATALOG) if CATALOG[name].model is CTRModel},
    "dsin": (DSINModel, dsin()),
    "dsin-everything": (DSINModel, dsin(**EVERYTHING, top={"kind": "snr", "subnets": 2, "tower_layers": ()})),
    "blocks": (CTRModel, composed(sequence=ALL_BLOCKS, use_negsampling=True)),
    "crossings": (CTRModel, composed(sequence=["din"], crossing=ALL_CROSSINGS)),
    "crossings-everything": (CTRModel, composed(sequence=["pooling"], crossing=ALL_CROSSINGS, **EVERYTHING)),
    "dots": (CTRModel, composed(crossing=["bilinear", "group_int"], cross_dim=4)),
    "users-alone": (CTRModel, composed(layout=features_only("user"), tasks=TWO, top=MMOE, **CENSUS)),
    "candidates-alone": (CTRModel, composed(layout=features_only("candidate"), tasks=TWO, top="snr", **CENSUS)),
    "no-history": (CTRModel, composed(layout=features_only("user", "candidate"), tasks=TWO, **CENSUS)),
    "din-shared-bottom": (DINModel, din("sum", tasks=TWO, top="shared_bottom")),
    "dien-mmoe": (DIENModel, dien("AUGRU", "mlp", use_negsampling=True, tasks=TWO, top=MMOE, input_norm=True)),
    "din-mmoe-topk": (DINModel, din("softmax", tasks=TWO, top={**MMOE, "gate": "topk"}, crossing=("autoint",))),
    "din-mmoe-noise": (DINModel, din("sum", tasks=TWO, top={**MMOE, "gate": "noise_topk", "tower_layers": ()})),
    "din-snr": (
        DINModel,
        din("sum", tasks=TWO, top={"kind": "snr", "subnets": 2, "use_ste": True, "tower_layers": []}),
    ),
    "snr-aver": (CTRModel, composed(tasks=TWO, top={"kind": "snr", "routing": "aver"}, mlp_hidden_layers=[6, 6])),
    "din-search": (DINModel, din("sum", nas=EmbeddingSearch(sizes={"item": (2, 4), "genre": (1, 4)}))),
    "dien-search-everything": (DIENModel, dien("GRU", "mlp", nas=EmbeddingSearch(allow_drop=True), **EVERYTHING)),
}
CASES: Final = {**CLASSIC, **COMPOSED}

"""The literal table of every network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from torch import nn

from models.ctr.dien import DIENConfig, DIENModel
from models.ctr.din import DINConfig, DINModel
from models.inputs import IdField, InputLayout, NumberField, Table
from models.layers.attention_group import AttentionGroup


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One network: its config class, the class built from it, and a small config for tests and warm-ups."""

    config: type[Any]
    model: Callable[[Any], nn.Module]
    tiny: Callable[[], Any]


def tiny_layout() -> InputLayout:
    """A small layout with a field of every kind: shared tables, a multi-valued field, behaviour types and values."""
    return InputLayout(
        tables=(
            Table(name="item", rows=30, dim=4),
            Table(name="genre", rows=8, dim=4),
            Table(name="type", rows=5, dim=2),
            Table(name="job", rows=6, dim=3),
        ),
        user_ids=(IdField(name="job", table="job", column=0),),
        user_numbers=(NumberField(name="age", column=0), NumberField(name="hour", column=1)),
        candidate_ids=(
            IdField(name="item", table="item", column=0),
            IdField(name="genres", table="genre", column=1, width=2),
        ),
        candidate_numbers=(NumberField(name="price", column=0),),
        behaviour_ids=(
            IdField(name="hist_item", table="item", column=0),
            IdField(name="hist_genres", table="genre", column=1, width=2),
            IdField(name="hist_type", table="type", column=3),
        ),
        behaviour_numbers=(NumberField(name="hist_value", column=0),),
    )


_PAIRS = ({"ad": "item", "pos_hist": "hist_item"}, {"ad": "genres", "pos_hist": "hist_genres"})


def _tiny_din() -> DINConfig:
    group = AttentionGroup("history", _PAIRS, (6, 4), extras=("hist_type", "hist_value"))
    return DINConfig(layout=tiny_layout(), attention_groups=(group,), mlp_hidden_layers=(8, 4))


def _tiny_dien() -> DIENConfig:
    group = AttentionGroup("history", _PAIRS, (6, 4), extras=("hist_type", "hist_value"))
    return DIENConfig(layout=tiny_layout(), attention_groups=(group,), mlp_hidden_layers=(8, 4), use_negsampling=True)


CATALOG: Final[Mapping[str, ModelEntry]] = {
    "dien": ModelEntry(DIENConfig, DIENModel, _tiny_dien),
    "din": ModelEntry(DINConfig, DINModel, _tiny_din),
}

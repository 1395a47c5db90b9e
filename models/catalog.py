"""The literal table of every network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from torch import nn

from models.ctr.composed import CTRConfig, CTRModel
from models.ctr.dien import DIENConfig, DIENModel
from models.ctr.din import DINConfig, DINModel
from models.ctr.dsin import DSINConfig, DSINModel, SessionOptions
from models.ctr.presets import PRESETS
from models.inputs import IdField, InputLayout, NumberField, Table
from models.layers.attention_group import AttentionGroup
from models.uplift.dcn_pd import DCNPD, DCNPDConfig
from models.uplift.dragonnet import DragonNet, DragonNetConfig
from models.uplift.drnet import DRNet, DRNetConfig
from models.uplift.learners import EffectLearnerConfig, LearnerConfig
from models.uplift.meta_learners import DRLearner, DRLearnerConfig, SLearner, TLearner, XLearner
from models.uplift.tarnet import TARNet, TARNetConfig
from models.uplift.vcnet import VCNet, VCNetConfig


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One network: its config class, the class built from it, and a small config for tests and warm-ups.

    ``preset`` are options that hold where a configuration says nothing else.
    """

    config: type[Any]
    model: Callable[[Any], nn.Module]
    tiny: Callable[[], Any]
    preset: Mapping[str, Any] = field(default_factory=dict)


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


def _tiny_dsin() -> DSINConfig:
    group = AttentionGroup("history", _PAIRS, (6, 4), extras=("hist_type",))
    session = SessionOptions(gap="hist_value", gap_seconds=0.5, sessions=3, length=2)
    return DSINConfig(layout=tiny_layout(), attention_groups=(group,), mlp_hidden_layers=(8, 4), session=session)


def _tiny_ctr() -> CTRConfig:
    group = AttentionGroup("history", _PAIRS, (6, 4), extras=("hist_type", "hist_value"))
    return CTRConfig(
        layout=tiny_layout(),
        attention_groups=(group,),
        mlp_hidden_layers=(8, 4),
        cross_dim=3,
        sequence={"din": {}},
        crossing={"dcn": {"layers": 1}},
    )


def _preset(name: str) -> ModelEntry:
    """A well-known network that ``CTRModel`` stands for."""
    options = PRESETS[name]

    def tiny() -> CTRConfig:
        plain = {**_tiny_ctr().to_dict(), "sequence": {}, "crossing": {}, **options}
        return CTRConfig.from_dict(plain)

    return ModelEntry(CTRConfig, CTRModel, tiny, options)


def tiny_user_layout() -> InputLayout:
    """``tiny_layout`` without its candidates: what an uplift network takes."""
    return replace(tiny_layout(), candidate_ids=(), candidate_numbers=())


_ARMS = ("control", "letter", "call")


def _tiny_tarnet() -> TARNetConfig:
    return TARNetConfig(layout=tiny_user_layout(), treatments=_ARMS, representation_layers=(8, 6), head_layers=(5,))


def _tiny_dragonnet() -> DragonNetConfig:
    return DragonNetConfig(layout=tiny_user_layout(), treatments=_ARMS, representation_layers=(8, 6), head_layers=(5,))


def _tiny_learner() -> LearnerConfig:
    return LearnerConfig(layout=tiny_user_layout(), treatments=_ARMS, hidden_layers=(8, 5))


def _tiny_x_learner() -> EffectLearnerConfig:
    return EffectLearnerConfig(layout=tiny_user_layout(), treatments=_ARMS, hidden_layers=(8, 5), effect_layers=(4,))


def _tiny_dr_learner() -> DRLearnerConfig:
    return DRLearnerConfig(layout=tiny_user_layout(), treatments=_ARMS, hidden_layers=(8, 5), effect_layers=(4,))


def _tiny_dcn_pd() -> DCNPDConfig:
    return DCNPDConfig(layout=tiny_user_layout(), treatments=_ARMS, shared_layers=(8, 6), head_layers=(5,))


def _tiny_drnet() -> DRNetConfig:
    # The letter has no dose.
    return DRNetConfig(
        layout=tiny_user_layout(),
        treatments=_ARMS,
        dosed=_ARMS[2:],
        base_layers=(8, 6),
        treatment_layers=(5,),
        head_layers=(4,),
        strata=3,
    )


def _tiny_vcnet() -> VCNetConfig:
    return VCNetConfig(
        layout=tiny_user_layout(), treatments=_ARMS, dosed=_ARMS[2:], trunk_layers=(8, 6), head_layers=(5,)
    )


CATALOG: Final[Mapping[str, ModelEntry]] = {
    "autoint": _preset("autoint"),
    "can": _preset("can"),
    "ctr": ModelEntry(CTRConfig, CTRModel, _tiny_ctr),
    "dcn_v2": _preset("dcn_v2"),
    "dien": ModelEntry(DIENConfig, DIENModel, _tiny_dien),
    "din": ModelEntry(DINConfig, DINModel, _tiny_din),
    "dmr": _preset("dmr"),
    "dsin": ModelEntry(DSINConfig, DSINModel, _tiny_dsin),
    "fibinet": _preset("fibinet"),
    "xdeepfm": _preset("xdeepfm"),
}

UPLIFT_CATALOG: Final[Mapping[str, ModelEntry]] = {
    # CFR is TARNet's network under another objective.
    "cfr": ModelEntry(TARNetConfig, TARNet, _tiny_tarnet),
    "dcn_pd": ModelEntry(DCNPDConfig, DCNPD, _tiny_dcn_pd),
    "dr_learner": ModelEntry(DRLearnerConfig, DRLearner, _tiny_dr_learner),
    "dragonnet": ModelEntry(DragonNetConfig, DragonNet, _tiny_dragonnet),
    "drnet": ModelEntry(DRNetConfig, DRNet, _tiny_drnet),
    "s_learner": ModelEntry(LearnerConfig, SLearner, _tiny_learner),
    "t_learner": ModelEntry(LearnerConfig, TLearner, _tiny_learner),
    "tarnet": ModelEntry(TARNetConfig, TARNet, _tiny_tarnet),
    "vcnet": ModelEntry(VCNetConfig, VCNet, _tiny_vcnet),
    "x_learner": ModelEntry(EffectLearnerConfig, XLearner, _tiny_x_learner),
}

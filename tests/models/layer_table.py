"""Every public layer once or more, with small arguments: what it takes, and what must hold for it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import torch
from torch import Tensor, nn

from models import layers
from models.layers import advanced_activations

TRAINING_LOSS = "a training loss, never part of a graph"


@dataclass(frozen=True)
class Given:
    """A random input: axes are sizes, or letters of sizes that vary (B rows, T steps)."""

    axes: tuple[str | int, ...]
    kind: str = "normal"

    def draw(self, sizes: Mapping[str, int], generator: torch.Generator) -> Tensor:
        shape = [sizes[axis] if isinstance(axis, str) else axis for axis in self.axes]
        if self.kind == "mask":
            return torch.rand(shape, generator=generator) < 0.7
        if self.kind == "unit":
            return torch.rand(shape, generator=generator)
        if self.kind == "positive":
            return 0.1 + torch.rand(shape, generator=generator)
        return torch.randn(shape, generator=generator)


def x(*axes: str | int) -> Given:
    return Given(axes)


def mask(*axes: str | int) -> Given:
    return Given(axes, "mask")


def unit(*axes: str | int) -> Given:
    return Given(axes, "unit")


def positive(*axes: str | int) -> Given:
    return Given(axes, "positive")


@dataclass(frozen=True, kw_only=True)
class LayerCase:
    """One layer under test.

    train_differs: training gives other numbers, as the layer's text says. by_row: a row's result does not depend on the
    other rows. cancels: parameters that the layer's formula takes out again. no_script, no_export: why there is none.
    """

    build: Callable[[], nn.Module]
    inputs: tuple[Given | list[Given], ...]
    constants: Mapping[str, Any] = field(default_factory=dict)
    train_differs: bool = False
    by_row: bool = True
    cancels: frozenset[str] = frozenset()
    no_script: str = ""
    no_export: str = ""


class AllActivations(nn.Module):
    """Every named activation, side by side."""

    def __init__(self) -> None:
        super().__init__()
        names = sorted([*advanced_activations.FUNCTIONS, *advanced_activations.CLASSES])
        self.each = nn.ModuleList(layers.get_activation(name, 4) for name in names)  # type: ignore[arg-type, misc]

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        for activation in self.each:
            outputs.append(activation(inputs))
        return torch.cat(outputs, 1)


class Dynamic(nn.Module):
    """``dynamic_rnn_with_attention`` of one cell."""

    def __init__(self, cell: layers.AGRUCell) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, inputs: Tensor, att_scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return layers.dynamic_rnn_with_attention(self.cell, inputs, att_scores, mask=mask)


class Static(Dynamic):
    """``static_rnn_with_attention`` of one cell."""

    def forward(self, inputs: Tensor, att_scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        return layers.static_rnn_with_attention(self.cell, inputs, att_scores, mask=mask)


class LastPooling(layers.Pooling):
    """The abstract pooling, made concrete."""

    def pool(self, vec_list: list[Tensor]) -> Tensor:
        return vec_list[-1]


FIELDS: Final = [x("B", 3), x("B", 3), x("B", 3)]
SIZES: Final = [[1, 3], [2, 4]]
NAMES: Final = ["f", "g"]
SEQUENCE: Final = (x("B", "T", 4), unit("B", "T"), mask("B", "T"))
ATTENTION: Final = (x("B", 4), x("B", "T", 4), mask("B", "T"))

CASES: Final[Mapping[str, LayerCase]] = {
    "AddBias": LayerCase(build=lambda: layers.AddBias([5, 3]), inputs=(x("B", 5, 3),)),
    "AddBias channels_first": LayerCase(
        build=lambda: layers.AddBias([5, 3]), inputs=(x("B", 3, 5),), constants={"data_format": "channels_first"}
    ),
    "Dense": LayerCase(build=lambda: layers.Dense(4, 3, "relu", inactive_relu_monitor=True), inputs=(x("B", "T", 4),)),
    "Dense kernel norm": LayerCase(
        build=lambda: layers.Dense(4, 3, "tanh", allow_kernel_norm=True, kernel_norm_trainable=True),
        inputs=(x("B", 4),),
    ),
    "MLP": LayerCase(build=lambda: layers.MLP(4, [5, 3], ["dice", "prelu"]), inputs=(x("B", 4),), train_differs=True),
    "MLP batch norm": LayerCase(
        build=lambda: layers.MLP(4, [5, 3], enable_batch_normalization=True), inputs=(x("B", 4),), train_differs=True
    ),
    "MLP renorm": LayerCase(
        build=lambda: layers.MLP(
            4,
            [5, 3],
            enable_batch_normalization=True,
            batch_normalization_renorm=True,
            batch_normalization_renorm_clipping={"rmax": 1.5, "dmax": 0.5},
        ),
        inputs=(x("B", 4),),
        train_differs=True,
    ),
    "BatchNorm": LayerCase(build=lambda: layers.BatchNorm(4), inputs=(x("B", "T", 4),), train_differs=True),
    "LayerNorm": LayerCase(build=lambda: layers.LayerNorm(4), inputs=(x("B", "T", 4),)),
    "Pooling": LayerCase(build=LastPooling, inputs=(FIELDS,)),
    "SumPooling": LayerCase(build=layers.SumPooling, inputs=(FIELDS,)),
    "AvgPooling": LayerCase(build=layers.AvgPooling, inputs=(FIELDS,)),
    "MaxPooling": LayerCase(build=layers.MaxPooling, inputs=(FIELDS,)),
    "SequencePooling sum": LayerCase(
        build=lambda: layers.SequencePooling("sum"), inputs=(x("B", "T", 4), mask("B", "T"))
    ),
    "SequencePooling avg": LayerCase(
        build=lambda: layers.SequencePooling("avg"), inputs=(x("B", "T", 4), mask("B", "T"))
    ),
    "SequencePooling max": LayerCase(
        build=lambda: layers.SequencePooling("max"), inputs=(x("B", "T", 4), mask("B", "T"))
    ),
    "GroupInt dot": LayerCase(build=lambda: layers.GroupInt("dot"), inputs=(FIELDS[:2], FIELDS)),
    "GroupInt attention": LayerCase(
        build=lambda: layers.GroupInt("multiply", True, [4, 1], embedding_dim=3), inputs=(FIELDS[:2], FIELDS)
    ),
    "GroupInt list": LayerCase(build=lambda: layers.FFM("multiply", out_type=None), inputs=(FIELDS[:2], FIELDS)),
    "AllInt": LayerCase(build=lambda: layers.AllInt(3, 2), inputs=(x("B", 3, 4),)),
    "AllInt kept list": LayerCase(
        build=lambda: layers.AllInt(3, 2, out_type="stack", keep_list=True), inputs=(x("B", 3, 4),)
    ),
    "CDot": LayerCase(build=lambda: layers.CDot(3, 4, 2, [5]), inputs=(x("B", 3, 4),)),
    "CAN": LayerCase(build=lambda: layers.CAN(3, activation="tanh"), inputs=(x("B", 2, 3), x("B", 24))),
    "CAN plain": LayerCase(build=lambda: layers.CAN(3, is_stacked=False), inputs=(x("B", 3), x("B", 24))),
    "CAN sequence": LayerCase(
        build=lambda: layers.CAN(3, activation="prelu", is_seq=True, is_stacked=False),
        inputs=(x("B", "T", 3), x("B", 24), mask("B", "T")),
    ),
    "CAN stacked sequence": LayerCase(
        build=lambda: layers.CAN(3, activation="tanh", is_seq=True),
        inputs=(x("B", 2, "T", 3), x("B", 24), mask("B", 2, "T")),
    ),
    "DCN vector": LayerCase(build=lambda: layers.DCN(4, 2, "vector", allow_kernel_norm=True), inputs=(x("B", 4),)),
    "DCN matrix": LayerCase(
        build=lambda: layers.DCN(4, 2, "matrix", use_dropout=True, keep_prob=0.5),
        inputs=(x("B", 4),),
        train_differs=True,
    ),
    "DCN mixed": LayerCase(
        build=lambda: layers.DCN(4, 2, "mixed", num_experts=3, low_rank=2, allow_kernel_norm=True), inputs=(x("B", 4),)
    ),
    "CIN": LayerCase(build=lambda: layers.CIN(3, 4, [5, 2], "prelu"), inputs=(x("B", 3, 4),)),
    "DIN": LayerCase(build=lambda: layers.DIN(4, [5, 1], "sigmoid", decay=True), inputs=ATTENTION),
    "DIN weighted steps": LayerCase(build=lambda: layers.DIN(4, [5, 1], "prelu", mode="steps"), inputs=ATTENTION),
    "InterestAttention": LayerCase(
        build=lambda: layers.InterestAttention(4, [5, 3], dropout=0.2),
        inputs=ATTENTION,
        train_differs=True,
        cancels=frozenset({"fc.bias"}),  # in the softmax
    ),
    "BilinearAttention": LayerCase(build=lambda: layers.BilinearAttention(4, 4), inputs=ATTENTION),
    "GRU": LayerCase(build=lambda: layers.GRU(4, 3), inputs=(x("B", "T", 4), mask("B", "T"))),
    "AGRUCell": LayerCase(
        build=lambda: layers.AGRUCell(4, 3, "AUGRU", "sigmoid", reset_after=False),
        inputs=(x("B", 4), x("B", 3), unit("B", 1)),
    ),
    "dynamic_rnn_with_attention": LayerCase(
        build=lambda: Dynamic(layers.AGRUCell(4, 3, "AGRU")),
        inputs=SEQUENCE,
        no_script="a function of a module; AGRUCell.run scripts",
    ),
    "static_rnn_with_attention": LayerCase(
        build=lambda: Static(layers.AGRUCell(4, 3, "AUGRU")),
        inputs=SEQUENCE,
        no_script="a function of a module; AGRUCell.run scripts",
        no_export="a Python loop over time; the dynamic one exports",
    ),
    "AIGRU": LayerCase(build=lambda: layers.AIGRU(4, 3), inputs=SEQUENCE),
    "Interest": LayerCase(
        build=lambda: layers.Interest(4, att_hidden_layers=(5,), att_activation="dice", hidden_size=3),
        inputs=ATTENTION,
        train_differs=True,
    ),
    "DIEN": LayerCase(build=lambda: layers.DIEN(4, 3, "AUGRU", query_dim=4), inputs=ATTENTION),
    "AuxiliaryLoss": LayerCase(
        build=lambda: layers.AuxiliaryLoss(4, (5,)),
        inputs=(x("B", "T", 4), x("B", "T", 4), x("B", "T", 4), mask("B", "T")),
        by_row=False,
        no_export=TRAINING_LOSS,
    ),
    "DMR_U2I": LayerCase(build=lambda: layers.DMR_U2I(9, 4, 3, 2), inputs=(x("B", 3), x("B", "T", 4), mask("B", "T"))),
    "AutoInt": LayerCase(build=lambda: layers.AutoInt(2), inputs=(x("B", 3, 4),)),
    "SeNet": LayerCase(build=lambda: layers.SeNet(3, 5, out_type="stack"), inputs=(x("B", 3, 4),)),
    "SeNet fields": LayerCase(build=lambda: layers.SeNet(2, 5, out_type=None), inputs=([x("B", 3), x("B", 4)],)),
    "LogitCorrection": LayerCase(
        build=lambda: layers.LogitCorrection(sample_bias=True), inputs=(x("B", 1), positive("B"))
    ),
    "GradNorm": LayerCase(
        build=lambda: layers.GradNorm(["a", "b"]),
        inputs=(),
        by_row=False,
        no_script="takes gradients",
        no_export=TRAINING_LOSS,
    ),
    "UncertaintyWeighting": LayerCase(
        build=lambda: layers.UncertaintyWeighting(2, ["regression", "classification"]),
        inputs=(positive(2),),
        by_row=False,
        no_export=TRAINING_LOSS,
    ),
    "CustomMultiLossLayer": LayerCase(
        build=lambda: layers.CustomMultiLossLayer(2),
        inputs=([x("B", 1), x("B", 3)], [x("B", 1), x("B", 3)]),
        by_row=False,
        no_export=TRAINING_LOSS,
    ),
    "MMoE": LayerCase(build=lambda: layers.MMoE(4, 2, [5, 3], "prelu", num_experts=3), inputs=(x("B", 4),)),
    "MMoE topk": LayerCase(
        build=lambda: layers.MMoE(
            4, 2, [[5, 3], [3], [2, 3]], ["relu", "tanh", None], gate_type="topk", topk=2, gate_in_features=2
        ),
        inputs=(x("B", 4), x("B", 2)),
    ),
    "MMoE noise_topk": LayerCase(
        build=lambda: layers.MMoE(4, 2, [5, 3], "relu", gate_type="noise_topk", top_k=2, num_experts=3),
        inputs=(x("B", 4),),
        train_differs=True,
    ),
    "SNR trans": LayerCase(build=lambda: layers.SNR(3, 3, 2, 4, use_ste=True), inputs=(FIELDS,), train_differs=True),
    "SNR aver": LayerCase(build=lambda: layers.SNR(3, 3, 2, 3, "aver"), inputs=(FIELDS,), train_differs=True),
    "NASSelectionLayer": LayerCase(
        build=lambda: layers.NASSelectionLayer(NAMES, SIZES, embedding_share_mode="random"),
        inputs=([x("B", 3), x("B", 4)],),
        train_differs=True,
    ),
    "MixedNASLayer": LayerCase(
        build=lambda: layers.MixedNASLayer(NAMES, SIZES, weight_grad_mode="gumbel"),
        inputs=([x("B", 4), x("B", 6)],),
        train_differs=True,
    ),
    "NASGatingLayer": LayerCase(
        build=lambda: layers.NASGatingLayer(NAMES, [2, 3], "softplus"), inputs=(x("B", 5),), train_differs=True
    ),
    "SimpleNasLayer": LayerCase(
        build=lambda: layers.SimpleNasLayer(NAMES, [2, 3], 0.4), inputs=(x("B", 5),), train_differs=True
    ),
    "PReLU": LayerCase(build=lambda: layers.PReLU(4), inputs=(x("B", "T", 4),)),
    "Dice": LayerCase(build=lambda: layers.Dice(4, affine=True), inputs=(x("B", "T", 4),), train_differs=True),
    "get_activation": LayerCase(build=AllActivations, inputs=(x("B", 4),), train_differs=True),
}

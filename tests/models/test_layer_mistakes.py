"""Mistakes in constructors and calls: a ValueError that names the argument, the value and what was expected."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models import layers

B = 4
x, cube, mask = torch.zeros(B, 3), torch.zeros(B, 2, 3), torch.ones(B, 2, dtype=torch.bool)

# What is called, and the words of the message: the argument, what was expected, what came.
MISTAKES: list[tuple[Callable[[], Any], str, str, str]] = [
    (lambda: layers.AddBias([]), "bias_shape", "1 to 4 positive sizes", r"\[\]"),
    (lambda: layers.AddBias([0]), "bias_shape", "1 to 4 positive sizes", r"\[0\]"),
    (lambda: layers.AddBias([3])(x, "NCHW"), "data_format", "channels_last", "NCHW"),
    (lambda: layers.AddBias([2])(x), "x", r"\[2\]", r"\[4, 3\]"),
    (lambda: layers.AddBias([2, 4])(cube), "x", r"\[2, 4\]", r"\[4, 2, 3\]"),
    (lambda: layers.AddBias([2, 3])(x), "x", r"\[2, 3\]", r"\[4, 3\]"),
    (lambda: layers.AddBias([3])(torch.zeros(3)), "x", "2 to 5 axes", r"\[3\]"),
    (lambda: layers.AddBias([3], "glorot"), "initializer", "glorot_uniform", "'glorot'"),
    (lambda: layers.Dense(0, 3), "in_features", "at least 1", "0"),
    (lambda: layers.Dense(3, 3, "rellu"), "activation", "relu", "'rellu'"),
    (lambda: layers.Dense(3, 3)(torch.zeros(B, 2)), "in_features = 3", "last axis", "2"),
    (lambda: layers.MLP(3, []), "output_dims", "at least one", "none"),
    (lambda: layers.MLP(3, [2, 1], ["relu"]), "activations", "each of 2 layers", "1"),
    (lambda: layers.BatchNorm(0), "num_features", "at least 1", "0"),
    (lambda: layers.LayerNorm(0), "normalized_dim", "at least 1", "0"),
    (lambda: layers.SumPooling()([]), "vec_list", "at least one", "none"),
    (lambda: layers.MaxPooling()([x, cube]), "vec_list", "one shape", r"\[4, 2, 3\]"),
    (lambda: layers.SequencePooling("median"), "mode", "sum, avg, max", "'median'"),
    (lambda: layers.SequencePooling(dim=0), "dim", "other than the first", "0"),
    (lambda: layers.SequencePooling()(cube, mask[:, :1]), "mask", r"\(4, 2\)", r"\[4, 1\]"),
    (lambda: layers.GroupInt("cosine"), "interaction_type", "dot, multiply", "'cosine'"),
    (lambda: layers.GroupInt("dot", True, [1], embedding_dim=3), "use_attention", "'multiply'", "'dot'"),
    (lambda: layers.GroupInt(use_attention=True, embedding_dim=3), "attention_units", "end with 1", r"\[\]"),
    (lambda: layers.GroupInt("multiply", True, [4, 2], embedding_dim=3), "attention_units", "end with 1", r"\[4, 2\]"),
    (lambda: layers.GroupInt("multiply", True, [1]), "embedding_dim", "at least 1", "None"),
    (lambda: layers.GroupInt(out_type="sum"), "out_type", "'concat', 'stack' or None", "'sum'"),
    (lambda: layers.GroupInt()([], [x]), "left_fields", "at least one", "none"),
    (lambda: layers.GroupInt()([x], [torch.zeros(B, 2)]), "right_fields", r"\(B, 3\)", r"\[4, 2\]"),
    (
        lambda: layers.GroupInt("multiply", True, [1], embedding_dim=2)([x], [x]),
        "left_fields",
        r"\(B, 2\)",
        r"\[4, 3\]",
    ),
    (lambda: layers.AllInt(0, 2), "num_feature", "at least 1", "0"),
    (lambda: layers.AllInt(3, 2)(cube), "embeddings", r"\(B, 3, D\)", r"\[4, 2, 3\]"),
    (lambda: layers.CDot(2, 3, 0, [4]), "project_dim", "at least 1", "0"),
    (lambda: layers.CDot(2, 4, 1, [4])(cube), "inputs", r"\(B, 2, 4\)", r"\[4, 2, 3\]"),
    (lambda: layers.CAN(3, 0), "layer_num", "at least 1", "0"),
    (lambda: layers.CAN(3)(x, x), "user_emb", "3 axes", r"\[4, 3\]"),
    (lambda: layers.CAN(3)(cube, x), "item_emb", r"\(B, 24\)", r"\[4, 3\]"),
    (lambda: layers.CAN(3)(cube, torch.zeros(B, 24), mask), "mask", "None without is_seq", "tensor"),
    (lambda: layers.CAN(3, 2, "relu", True, False)(cube, torch.zeros(B, 24), mask[:, :1]), "mask", r"\[4, 2\]", "1"),
    (lambda: layers.DCN(3, 1, "cross"), "dcn_type", "vector, matrix, mixed", "'cross'"),
    (lambda: layers.DCN(3, 0), "layer_num", "at least 1", "0"),
    (lambda: layers.DCN(3, 1, "mixed"), "low_rank", "at least 1", "0"),
    (lambda: layers.DCN(3, 1, "mixed", num_experts=0, low_rank=2), "num_experts", "at least 1", "0"),
    (lambda: layers.DCN(3, keep_prob=0.0), "keep_prob", r"\(0, 1\]", "0.0"),
    (lambda: layers.DCN(4)(x), "x", r"\(B, 4\)", r"\[4, 3\]"),
    (lambda: layers.CIN(2, 3, []), "hidden_uints", "at least one layer", r"\[\]"),
    (lambda: layers.CIN(2, 3, [0]), "hidden_uints", "at least one map", r"\[0\]"),
    (lambda: layers.CIN(2, 3, [1], hidden_units=[2]), "hidden_uints", "once", r"\[2\]"),
    (lambda: layers.CIN(3, 3, [1])(cube), "inputs", r"\(B, 3, 3\)", r"\[4, 2, 3\]"),
    (lambda: layers.DIN(3, [4, 2]), "hidden_units", "end with 1", r"\[4, 2\]"),
    (lambda: layers.DIN(3, [1])(x, torch.zeros(B, 2, 4)), "keys", r"\(B, T, 3\)", r"\[4, 2, 4\]"),
    (lambda: layers.InterestAttention(3, []), "hidden_layers", "at least one", "none"),
    (lambda: layers.InterestAttention(3, [4], dropout=1.0), "dropout", r"\[0, 1\)", "1.0"),
    (lambda: layers.AGRUCell(3, 3, "GRU"), "att_type", "AGRU, AUGRU", "'GRU'"),
    (lambda: layers.AGRUCell(3, 3)(x, x), "att_score", "given for AGRU", "None"),
    (lambda: layers.AGRUCell(3, 3)(x, x, cube), "att_score", r"\(B,\) or \(B, 1\)", r"\[4, 2, 3\]"),
    (lambda: layers.GRU(0, 3), "input_size", "at least 1", "0"),
    (lambda: layers.GRU(3, 3)(cube, mask[:, :1]), "mask", r"\(4, 2\)", r"\[4, 1\]"),
    (lambda: layers.AIGRU(3, 0), "hidden_size", "at least 1", "0"),
    (lambda: layers.DIEN(3, 3, "AIGRU"), "att_type", "AGRU, AUGRU", "'AIGRU'"),
    (lambda: layers.Interest(3, "LSTM"), "gru_type", "AUGRU", "'LSTM'"),
    (lambda: layers.Interest(3, attention="dot"), "attention", "bilinear", "'dot'"),
    (lambda: layers.AuxiliaryLoss(3)(cube, cube, cube[:, :1], mask), "noclick_seq", r"\[4, 2, 3\]", r"\[4, 1, 3\]"),
    (lambda: layers.DMR_U2I(0, 3, 3, 2), "seq_length", "at least 1", "0"),
    (lambda: layers.DMR_U2I(1, 3, 3, 2)(x, cube), "user_seq", "T <= 1", r"\[4, 2, 3\]"),
    (lambda: layers.AutoInt(-1), "layer_num", "at least 0", "-1"),
    (lambda: layers.AutoInt()(x), "embeds", r"\(B, N, D\)", r"\[4, 3\]"),
    (lambda: layers.SeNet(0, 2), "num_feature", "at least 1", "0"),
    (lambda: layers.SeNet(2, 2)([x]), "num_feature = 2", "tensors", "1"),
    (lambda: layers.SeNet(2, 2, out_type="stack")([x, x[:, :2]]), "inputs", "one width", "3 and 2"),
    (lambda: layers.LogitCorrection()(cube), "logits", r"\(B,\) or \(B, K\)", r"\[4, 2, 3\]"),
    (lambda: layers.LogitCorrection()(x[:, 0], torch.zeros(B)), "sample_rate", "positive", "0.0"),
    (lambda: layers.GradNorm([]), "loss_names", "at least one", r"\[\]"),
    (lambda: layers.GradNorm(["a", "a"]), "loss_names", "different", r"\['a', 'a'\]"),
    (lambda: layers.GradNorm(["a"], loss_pow=0.5), "loss_pow", "at least 1", "0.5"),
    (lambda: layers.GradNorm(["a"], epsilon=0.0), "epsilon", "positive", "0.0"),
    (lambda: layers.GradNorm(["a"])([], [x]), "losses", "1, one for each", "0"),
    (lambda: layers.GradNorm(["a"])([x.sum()], []), "shared_inputs", "at least one", "none"),
    (lambda: layers.GradNorm(["a"])([x.sum()], [x]), "shared_inputs", "require gradients", "without"),
    (lambda: layers.GradNorm(["a"]).combine(torch.zeros(2), torch.zeros(2)), "gnorms", r"\[1\]", r"\[2\]"),
    (lambda: layers.UncertaintyWeighting(0), "num_tasks", "at least 1", "0"),
    (lambda: layers.UncertaintyWeighting(1, ["ranking"]), "task_types", "classification", "'ranking'"),
    (lambda: layers.UncertaintyWeighting(1, clamp=(1.0, 1.0)), "clamp", "lower and a higher", r"\(1.0, 1.0\)"),
    (lambda: layers.UncertaintyWeighting(2)(torch.zeros(1)), "losses", r"\[2\]", r"\[1\]"),
    (lambda: layers.CustomMultiLossLayer(0), "nb_outputs", "at least 1", "0"),
    (lambda: layers.CustomMultiLossLayer(2)([x], [x]), "ys_true", "nb_outputs = 2", "1 and 1"),
    (lambda: layers.CustomMultiLossLayer(1)([x], [x[:, :2]]), "ys_pred", "equal shapes", r"\[4, 2\]"),
    (lambda: layers.MMoE(3, 0, [2], "relu", num_experts=2), "num_tasks", "at least 1", "0"),
    (lambda: layers.MMoE(3, 2, [2], "relu"), "num_experts", "given", "None"),
    (lambda: layers.MMoE(3, 2, [2], "relu", num_experts=0), "num_experts", "at least 1", "0"),
    (lambda: layers.MMoE(3, 2, [[2], [3]], "relu"), "expert_output_dims", "same width", r"\[\[2\], \[3\]\]"),
    (lambda: layers.MMoE(3, 2, [[2], [2]], "relu", num_experts=3), "expert_output_dims", "each of 3", "2"),
    (lambda: layers.MMoE(3, 2, [2], ["relu"], num_experts=2), "expert_activations", "each of 2 experts", "1"),
    (lambda: layers.MMoE(3, 2, [2], "relu", gate_type="top", num_experts=2), "gate_type", "noise_topk", "'top'"),
    (lambda: layers.MMoE(3, 2, [2], "relu", top_k=0, num_experts=2), "top_k", "at least 1", "0"),
    (lambda: layers.MMoE(3, 2, [2], "relu", num_experts=2, gate_in_features=5)(x), "gate_input", r"\(B, 5\)", "3"),
    (lambda: layers.SNR(0, 3, 2, 2), "num_in_subnet", "at least 1", "0"),
    (lambda: layers.SNR(2, 3, 2, 3, "average"), "snr_type", "trans, aver", "'average'"),
    (lambda: layers.SNR(2, 3, 2, 2, "aver"), "out_subnet_dim", "3 for aver", "2"),
    (lambda: layers.SNR(2, 3, 2, 2, zeta=1.0), "zeta", "above 1", "1.0"),
    (lambda: layers.SNR(2, 3, 2, 2, gamma=0.1), "gamma", "below 0", "0.1"),
    (lambda: layers.SNR(2, 3, 2, 2, beta=0.0), "beta", "positive", "0.0"),
    (lambda: layers.SNR(2, 3, 2, 2)([x]), "inputs", "num_in_subnet = 2", "1"),
    (lambda: layers.SNR(2, 3, 2, 2)([x, x], torch.zeros(1)), "u", r"\[4, 1\]", r"\[1\]"),
    (lambda: layers.NASSelectionLayer(["a", "a"], [[1], [1]]), "segment_names", "different", r"\['a', 'a'\]"),
    (lambda: layers.NASSelectionLayer(["a"], [[1], [1]]), "segment_sizes", "each of 1", "2"),
    (lambda: layers.NASSelectionLayer(["a"], [[]]), "segment_sizes", "positive", r"\[\]"),
    (lambda: layers.NASSelectionLayer(["a"], [[0, 2]]), "segment_sizes", "positive", r"\[0, 2\]"),
    (lambda: layers.MixedNASLayer(["a"], [[0]]), "segment_sizes", "positive", r"\[\]"),
    (
        lambda: layers.NASSelectionLayer(["a"], [[4, 2]], embedding_share_mode="diff"),
        "segment_sizes",
        "increase",
        r"\[4, 2\]",
    ),
    (lambda: layers.NASSelectionLayer(["a"], [[1]], 0.0), "temperature", "positive", "0.0"),
    (lambda: layers.NASSelectionLayer(["a"], [[1]], 1.0, "both"), "embedding_share_mode", "left, diff", "'both'"),
    (lambda: layers.NASSelectionLayer(["a"], [[1]], weight_grad_mode="soft"), "weight_grad_mode", "gumbel", "'soft'"),
    (lambda: layers.NASSelectionLayer(["a"], [[1, 3]])([x]), "segments", r"\(B, 4\)", r"\[4, 3\]"),
    (lambda: layers.NASSelectionLayer(["a"], [[3]])([x, x]), "segments", "1 tensors", "2"),
    (lambda: layers.NASGatingLayer(["a"], [0]), "segment_sizes", "positive", r"\[0\]"),
    (lambda: layers.NASGatingLayer([], []), "segment_names", "at least one", r"\[\]"),
    (lambda: layers.NASGatingLayer(["a"], [1], "hard"), "ste_type", "softplus", "'hard'"),
    (lambda: layers.NASGatingLayer(["a"], [2])(x), "x", r"\(B, 2\)", r"\[4, 3\]"),
    (lambda: layers.SimpleNasLayer(["a"], [1], temperature=-1.0), "temperature", "positive", "-1.0"),
    (lambda: layers.SimpleNasLayer(["a"], [1], float("nan")), "threshold", "number", "nan"),
    (lambda: layers.PReLU(0), "num_features", "at least 1", "0"),
    (lambda: layers.Dice(0), "num_features", "at least 1", "0"),
    (lambda: layers.get_activation("dice"), "dice", "num_features", "width"),
    (lambda: layers.merge_tensor_list([]), "tensor_list", "at least one", "none"),
    (lambda: layers.merge_tensor_list(x, "sum"), "merge_type", "'stack' or None", "sum"),
    (lambda: layers.merge_tensor_list(x, num_feature=2), "num_feature", "divide the width 3", "2"),
    (lambda: layers.merge_tensor_list(x[:, 0]), "tensor_list", "2 or 3 axes", r"\[4\]"),
    (lambda: layers.merge_tensor_list([x, x[:, :2]], "stack"), "tensor_list", "fit for stack", r"\[4, 2\]"),
    (lambda: layers.merge_tensor_list([x, x[:2]]), "tensor_list", "fit for concat", r"\[2, 3\]"),
    (lambda: layers.merge_tensor_list([x, x], axis=2), "axis", "axis of the result", "2"),
]


@pytest.mark.parametrize(
    ("mistake", "argument", "expected", "got"), MISTAKES, ids=[str(i) for i in range(len(MISTAKES))]
)
def test_a_mistake_names_argument_value_and_what_was_expected(
    mistake: Callable[[], Any], argument: str, expected: str, got: str
) -> None:
    for words in (argument, expected, got):
        with pytest.raises(ValueError, match=words):
            mistake()


def test_an_rnn_needs_an_attention_cell() -> None:
    for function in (layers.dynamic_rnn_with_attention, layers.static_rnn_with_attention):
        with pytest.raises(TypeError, match="AGRUCell, got GRU"):
            function(layers.GRU(3, 3), cube, mask.float())  # type: ignore[operator]


def test_grad_norm_needs_grad_mode() -> None:
    shared = torch.ones(2, requires_grad=True)
    with torch.no_grad(), pytest.raises(ValueError, match="grad mode"):
        layers.GradNorm(["a"])([shared.sum()], [shared])


def test_every_layer_with_arguments_is_in_the_table() -> None:
    named = {name for mistake in MISTAKES for name in mistake[0].__code__.co_names}
    untold = {"AttentionGroup", "AvgPooling", "BilinearAttention", "FFM", "Pooling", "advanced_activations"}
    functions = {name for name in layers.__all__ if name[0].islower()}
    assert set(layers.__all__) - untold - functions <= named

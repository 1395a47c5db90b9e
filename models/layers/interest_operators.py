"""Attention over a history, and the evolution that it steers, each as ONE operator while a network is exported.

An exporter that sees the single products cannot choose their order, and a compiled kernel needs one place to stand in.
So both are operators here, with every tensor as an input; the ONNX form is ``training.graph.interest_forms``. Eager and
TorchScript networks never call them: the bodies below say what the operators mean and are compared with the layers.

``scoring`` says how a pair is scored. Three tensors a hidden layer: kernel (in, out) with batch norm folded into it,
bias (out,), and shape (3, out) of the activation (see ``activate``); then the last layer's kernel (J, 1) and bias (1,).
The activation ``bilinear`` has no layers: one tensor (D, Q), and the score is k . (W q).

Letters: U users, C candidates, T steps, D width, H hidden width, G blocks of gates, J units of the last hidden layer.
"""

from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn

from models.layers import attention_gru
from models.layers.activations import Dice, PReLU
from models.layers.advanced_activations import Elementwise, ReLU
from models.layers.dense import Dense
from models.layers.masks import blank_padding, masked_softmax
from models.layers.normalization import BatchNorm
from models.layers.pairs import all_pairs_affine

BILINEAR: Final = "bilinear"


@dataclass(frozen=True, slots=True)
class Scoring:
    """How pairs are scored: activation and tensors as above, and the factor of the raw scores."""

    activation: str
    tensors: list[Tensor]
    scale: float


def network_scoring(
    dense: nn.ModuleList, norms: nn.ModuleList, activations: nn.ModuleList, last: Dense, scale: float
) -> Scoring | None:
    """The scoring of a network in evaluation mode; None where the operators do not know its activation.

    Args:
        dense: hidden layers.
        norms: of each, a BatchNorm or nothing.
        activations: of each.
        last: maps to the score.
        scale: of the score.
    """
    names = {_name(activation) for activation in activations}
    if len(names) != 1 or None in names:
        return None
    tensors: list[Tensor] = []
    for layer, norm, activation in zip(dense, norms, activations, strict=True):
        kernel, bias = layer.affine()  # type: ignore[operator]
        if isinstance(norm, BatchNorm):
            scale_of, shift = norm.running_affine()
            kernel, bias = kernel * scale_of, bias * scale_of + shift
        tensors += [kernel, bias, _shape(activation, bias)]
    tensors += last.affine()
    return Scoring(str(names.pop()), tensors, scale)


def activate(x: Tensor, activation: str, shape: Tensor) -> Tensor:
    """An activation of (..., J) whose parameters are the rows of ``shape`` (3, J): slope, gate scale, gate shift."""
    slope, gate_scale, gate_shift = shape.unbind(0)
    if activation == "sigmoid":
        return torch.sigmoid(x)
    if activation == "relu":
        return torch.relu(x)
    if activation == "prelu":
        return torch.relu(x) + slope * torch.clamp(x, max=0.0)
    if activation == "dice":
        return x * (slope + (1.0 - slope) * torch.sigmoid(x * gate_scale + gate_shift))
    return x


@torch.library.custom_op("ctrlift::target_interest", mutates_args=())
def target_interest(
    queries: Tensor, keys: Tensor, mask: Tensor, scoring: list[Tensor], activation: str, mode: str, scale: float
) -> Tensor:
    """Attended history (U, C, D) of queries (U, C, D), keys (U, T, D) and mask (U, T).

    ``mode`` is ``sum`` (raw scores, zero on padding) or ``softmax``. What stands on padding has no effect.
    """
    clean = blank_padding(keys, mask)
    scores = _raw_scores(queries, clean, scoring, activation, scale)
    if mode == "softmax":
        return torch.matmul(masked_softmax(scores, mask.unsqueeze(1)), clean)
    return torch.matmul(torch.where(mask.unsqueeze(1), scores, torch.zeros_like(scores)), clean)


@target_interest.register_fake
def _(
    queries: Tensor, keys: Tensor, mask: Tensor, scoring: list[Tensor], activation: str, mode: str, scale: float
) -> Tensor:
    return queries.new_empty(queries.size(0), queries.size(1), keys.size(2))


@torch.library.custom_op("ctrlift::evolved_interest", mutates_args=())
def evolved_interest(
    queries: Tensor,
    states: Tensor,
    mask: Tensor,
    scoring: list[Tensor],
    gates_weight: Tensor,
    gates_bias: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor,
    activation: str,
    scale: float,
) -> Tensor:
    """Final state (U, C, H) of an AGRU or AUGRU over states (U, T, D), steered by softmax attention of the queries.

    Queries are (U, C, Q), mask (U, T), gates_weight (G*H, D), gates_bias (G*H,), weight_hh (G*H, H), bias_n (H,), as
    ``attention_gru`` has them. What stands on padding has no effect.
    """
    clean = blank_padding(states, mask)
    attention = masked_softmax(_raw_scores(queries, clean, scoring, activation, scale), mask.unsqueeze(1))
    gates = attention_gru.input_half(clean, gates_weight, gates_bias)
    initial = states.new_zeros(weight_hh.size(1), queries.size(0), queries.size(1))
    final = attention_gru.run_to_end(gates, weight_hh, bias_n, attention.permute(2, 0, 1), initial)
    return final.permute(1, 2, 0).contiguous()


@evolved_interest.register_fake
def _(
    queries: Tensor,
    states: Tensor,
    mask: Tensor,
    scoring: list[Tensor],
    gates_weight: Tensor,
    gates_bias: Tensor,
    weight_hh: Tensor,
    bias_n: Tensor,
    activation: str,
    scale: float,
) -> Tensor:
    return queries.new_empty(queries.size(0), queries.size(1), weight_hh.size(1))


def _raw_scores(queries: Tensor, keys: Tensor, scoring: list[Tensor], activation: str, scale: float) -> Tensor:
    if activation == BILINEAR:
        return torch.matmul(queries, torch.matmul(keys, scoring[0]).transpose(1, 2)) * scale
    layers, (last_kernel, last_bias) = scoring[:-2], scoring[-2:]
    x = activate(all_pairs_affine(layers[0], layers[1], queries, keys), activation, layers[2])
    for place in range(3, len(layers), 3):
        x = activate(torch.matmul(x, layers[place]) + layers[place + 1], activation, layers[place + 2])
    return (torch.matmul(x, last_kernel) + last_bias).squeeze(-1) * scale


def _name(activation: nn.Module) -> str | None:
    if isinstance(activation, PReLU):
        return "prelu"
    if isinstance(activation, Dice):
        return "dice"
    if isinstance(activation, ReLU) and activation.is_plain():
        return "relu"
    if isinstance(activation, Elementwise) and activation.name in ("sigmoid", "linear"):
        return activation.name
    return None


def _shape(activation: nn.Module, like: Tensor) -> Tensor:
    nothing = torch.zeros_like(like)
    if isinstance(activation, PReLU):
        return torch.stack([activation.alpha, nothing, nothing])
    if isinstance(activation, Dice):
        return torch.stack([activation.alpha, *activation.bn.running_affine()])
    return torch.stack([nothing, nothing, nothing])

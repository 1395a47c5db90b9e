"""The attention operators of ``opaque`` written in ONNX.

Time is the outermost axis and candidates are the innermost one, as the recurrence wants them.

Letters: U users, C candidates, T steps, D width, H hidden width, G blocks of gates.
"""

# mypy: ignore-errors
# The builder of onnxscript makes an operator of every attribute it is asked for, which no type can say.

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from models.layers.interest_operators import BILINEAR
from training.graph.recurrence_forms import final_state
from training.graph.scoring_forms import network_scores

Inputs = Sequence[ir.Value]
Attributes = Mapping[str, Any]


def evolved_interest(op, inputs: Inputs, attributes: Attributes):
    """Interest (U, C, H)."""
    queries, states, mask = inputs[:3]
    gates_weight, gates_bias, weight_hh, bias_n = inputs[-4:]
    steps, real = _by_step(op, states, mask)
    attention = _softmax(op, _scores(op, queries, steps, inputs[3:-4], attributes), real)
    gates = op.Add(op.MatMul(steps, op.Transpose(gates_weight, perm=[1, 0])), gates_bias)
    return final_state(op, gates, weight_hh, bias_n, attention)


def target_interest(op, inputs: Inputs, attributes: Attributes):
    """Interest (U, C, D)."""
    queries, keys, mask = inputs[:3]
    steps, real = _by_step(op, keys, mask)
    scores = _scores(op, queries, steps, inputs[3:], attributes)
    if attributes["mode"] == "softmax":
        weights = _softmax(op, scores, real)
    else:
        weights = op.Where(real, scores, op.Constant(value_float=0.0))
    return op.MatMul(op.Transpose(weights, perm=[1, 2, 0]), op.Transpose(steps, perm=[1, 0, 2]))


def _by_step(op, keys, mask):
    """Steps (T, U, D), zero on padding, and the mask (T, U, 1)."""
    real = op.Unsqueeze(op.Transpose(mask, perm=[1, 0]), [2])
    return op.Where(real, op.Transpose(keys, perm=[1, 0, 2]), op.Constant(value_float=0.0)), real


def _scores(op, queries, steps, scoring: Inputs, attributes: Attributes):
    """Raw scores (T, U, C); whatever moves all scores of a query alike is left out where a softmax follows."""
    if attributes["activation"] == BILINEAR:
        mapped = op.Transpose(op.MatMul(steps, scoring[0]), perm=[1, 0, 2])
        return op.Transpose(op.MatMul(mapped, op.Transpose(queries, perm=[0, 2, 1])), perm=[1, 0, 2])
    scale = op.Constant(value_float=float(attributes["scale"]))
    *layers, last_kernel, last_bias = scoring
    scores = network_scores(op, queries, steps, [*layers, op.Mul(last_kernel, scale)], attributes["activation"])
    if attributes.get("mode") == "sum":
        return op.Add(scores, op.Mul(last_bias, scale))
    return scores


def _softmax(op, scores, real):
    """Of (T, U, C) over the real steps, zeros where there is none."""
    filled = op.Where(real, scores, op.Constant(value_float=float(np.finfo(np.float32).min)))
    weights = op.Mul(op.Exp(op.Sub(filled, op.ReduceMax(filled, [0]))), op.Cast(real, to=ir.DataType.FLOAT))
    total = op.Max(op.ReduceSum(weights, [0]), op.Constant(value_float=float(np.finfo(np.float32).tiny)))
    return op.Div(weights, total)

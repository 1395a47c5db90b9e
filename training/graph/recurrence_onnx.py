"""The recurrent operators of ``models.layers`` written in ONNX.

An exporter would unroll them over the example's history; here they are one ``GRU`` node, and one ``Scan`` whose body
holds as few operations as the recurrence allows: at serving sizes a step costs more to dispatch than to compute.
Candidates are the innermost axis of the state, so that a step is one product of (G*H, H) with (U, H, C), and gates that
a user's candidates share broadcast for free.

Letters: U users, C candidates, T steps, H hidden width, G blocks of gates (3: u, r, n; 2: r, n).
"""

# ruff: noqa: D103 - onnxscript turns the docstring of a scripted function into graph text; comments describe them
# mypy: ignore-errors
# onnxscript annotates its functions with the types of eager values; these are only ever turned into graphs.

from collections.abc import Callable, Mapping
from typing import Any

import onnx
import torch
from onnxscript import BOOL, FLOAT, graph, script
from onnxscript import opset18 as op
from onnxscript.values import Opset

# Importing the layers registers the operators that are translated here.
from models.layers import attention_gru, gru  # noqa: F401

_DOMAIN = Opset("ctrlift", 1)


# Three blocks, the last state alone: gates (T, 3H, U), attention (T, U, C), initial (H, U, C) -> (H, U, C).
@script(_DOMAIN)
def augru_final(
    gates: FLOAT[...], weight_hh: FLOAT[...], bias_n: FLOAT[...], attention: FLOAT[...], initial: FLOAT[...]
) -> FLOAT[...]:
    per_step = op.Unsqueeze(op.Transpose(gates, perm=[0, 2, 1]), op.Constant(value_ints=[3]))
    gate_u, gate_r, gate_n = op.Split(per_step, axis=2, num_outputs=3)
    # b_n joins the n block of the product, so one addition serves all three blocks.
    recurrent_n = op.Expand(op.Unsqueeze(bias_n, op.Constant(value_ints=[1])), op.Shape(gate_n))
    added = op.Concat(gate_u, gate_r, recurrent_n, axis=2)
    shares = op.Unsqueeze(attention, op.Constant(value_ints=[2]))
    start = op.Transpose(initial, perm=[1, 0, 2])

    @graph()
    def step(h, add, from_n, share):
        u, r, n = op.Split(op.Add(op.MatMul(weight_hh, h), add), axis=1, num_outputs=3)
        proposed = op.Tanh(op.Add(op.Mul(op.Sigmoid(r), n), from_n))
        return op.Add(h, op.Mul(op.Mul(op.Sigmoid(u), share), op.Sub(proposed, h)))

    final = op.Scan(start, added, gate_n, shares, body=step, num_scan_inputs=3)
    return op.Transpose(final, perm=[1, 0, 2])


# Two blocks: gates (T, 2H, U).
@script(_DOMAIN)
def agru_final(
    gates: FLOAT[...], weight_hh: FLOAT[...], bias_n: FLOAT[...], attention: FLOAT[...], initial: FLOAT[...]
) -> FLOAT[...]:
    per_step = op.Unsqueeze(op.Transpose(gates, perm=[0, 2, 1]), op.Constant(value_ints=[3]))
    gate_r, gate_n = op.Split(per_step, axis=2, num_outputs=2)
    recurrent_n = op.Expand(op.Unsqueeze(bias_n, op.Constant(value_ints=[1])), op.Shape(gate_n))
    added = op.Concat(gate_r, recurrent_n, axis=2)
    shares = op.Unsqueeze(attention, op.Constant(value_ints=[2]))
    start = op.Transpose(initial, perm=[1, 0, 2])

    @graph()
    def step(h, add, from_n, share):
        r, n = op.Split(op.Add(op.MatMul(weight_hh, h), add), axis=1, num_outputs=2)
        proposed = op.Tanh(op.Add(op.Mul(op.Sigmoid(r), n), from_n))
        return op.Add(h, op.Mul(share, op.Sub(proposed, h)))

    final = op.Scan(start, added, gate_n, shares, body=step, num_scan_inputs=3)
    return op.Transpose(final, perm=[1, 0, 2])


# As augru_final, and every state: (T, H, U, C).
@script(_DOMAIN)
def augru_states(
    gates: FLOAT[...], weight_hh: FLOAT[...], bias_n: FLOAT[...], attention: FLOAT[...], initial: FLOAT[...]
) -> FLOAT[...]:
    per_step = op.Unsqueeze(op.Transpose(gates, perm=[0, 2, 1]), op.Constant(value_ints=[3]))
    gate_u, gate_r, gate_n = op.Split(per_step, axis=2, num_outputs=3)
    recurrent_n = op.Expand(op.Unsqueeze(bias_n, op.Constant(value_ints=[1])), op.Shape(gate_n))
    added = op.Concat(gate_u, gate_r, recurrent_n, axis=2)
    shares = op.Unsqueeze(attention, op.Constant(value_ints=[2]))
    start = op.Transpose(initial, perm=[1, 0, 2])

    @graph()
    def step(h, add, from_n, share):
        u, r, n = op.Split(op.Add(op.MatMul(weight_hh, h), add), axis=1, num_outputs=3)
        proposed = op.Tanh(op.Add(op.Mul(op.Sigmoid(r), n), from_n))
        h_next = op.Add(h, op.Mul(op.Mul(op.Sigmoid(u), share), op.Sub(proposed, h)))
        return h_next, op.Identity(h_next)

    _, states = op.Scan(start, added, gate_n, shares, body=step, num_scan_inputs=3)
    return op.Transpose(states, perm=[0, 2, 1, 3])


# As agru_final, and every state.
@script(_DOMAIN)
def agru_states(
    gates: FLOAT[...], weight_hh: FLOAT[...], bias_n: FLOAT[...], attention: FLOAT[...], initial: FLOAT[...]
) -> FLOAT[...]:
    per_step = op.Unsqueeze(op.Transpose(gates, perm=[0, 2, 1]), op.Constant(value_ints=[3]))
    gate_r, gate_n = op.Split(per_step, axis=2, num_outputs=2)
    recurrent_n = op.Expand(op.Unsqueeze(bias_n, op.Constant(value_ints=[1])), op.Shape(gate_n))
    added = op.Concat(gate_r, recurrent_n, axis=2)
    shares = op.Unsqueeze(attention, op.Constant(value_ints=[2]))
    start = op.Transpose(initial, perm=[1, 0, 2])

    @graph()
    def step(h, add, from_n, share):
        r, n = op.Split(op.Add(op.MatMul(weight_hh, h), add), axis=1, num_outputs=2)
        proposed = op.Tanh(op.Add(op.Mul(op.Sigmoid(r), n), from_n))
        h_next = op.Add(h, op.Mul(share, op.Sub(proposed, h)))
        return h_next, op.Identity(h_next)

    _, states = op.Scan(start, added, gate_n, shares, body=step, num_scan_inputs=3)
    return op.Transpose(states, perm=[0, 2, 1, 3])


def _attention_gru_final(
    gates: FLOAT[...], weight_hh: FLOAT[...], bias_n: FLOAT[...], attention: FLOAT[...], initial: FLOAT[...]
) -> FLOAT[...]:
    """The function for the number of gate blocks that the weights have."""
    scripted = augru_final if _blocks(weight_hh, bias_n) == 3 else agru_final
    return scripted(gates, weight_hh, bias_n, attention, initial)


def _attention_gru_states(
    gates: FLOAT[...], weight_hh: FLOAT[...], bias_n: FLOAT[...], attention: FLOAT[...], initial: FLOAT[...]
) -> FLOAT[...]:
    """The function for the number of gate blocks that the weights have."""
    scripted = augru_states if _blocks(weight_hh, bias_n) == 3 else agru_states
    return scripted(gates, weight_hh, bias_n, attention, initial)


def _blocks(weight_hh: Any, bias_n: Any) -> int:
    return int(weight_hh.shape[0]) // int(bias_n.shape[0])


def _gru_states(
    sequence: FLOAT[...],
    mask: BOOL[...],
    weight_ih: FLOAT[...],
    weight_hh: FLOAT[...],
    bias_ih: FLOAT[...],
    bias_hh: FLOAT[...],
) -> FLOAT[...]:
    """States (B, T, H) of sequence (B, T, D) and mask (B, T); torch's row blocks are r, z, n and the node's z, r, n.

    The node knows no mask with holes. A further input column, 1 on padding, drives z (the share kept) there to 1, which
    carries the state.
    """
    first, last = op.Constant(value_ints=[0]), op.Constant(value_ints=[2])
    padding = op.Unsqueeze(op.Cast(op.Not(mask), to=1), last)
    in_r, in_z, in_n = op.Split(weight_ih, axis=0, num_outputs=3)
    re_r, re_z, re_n = op.Split(weight_hh, axis=0, num_outputs=3)
    bi_r, bi_z, bi_n = op.Split(bias_ih, axis=0, num_outputs=3)
    br_r, br_z, br_n = op.Split(bias_hh, axis=0, num_outputs=3)
    hidden = int(weight_hh.shape[1])
    nothing = op.Constant(value=_column(hidden, 0.0))
    on_padding = op.Concat(op.Constant(value=_column(hidden, 1000.0)), nothing, nothing, axis=0)
    states, _ = op.GRU(
        op.Transpose(op.Concat(sequence, padding, axis=2), perm=[1, 0, 2]),
        op.Unsqueeze(op.Concat(op.Concat(in_z, in_r, in_n, axis=0), on_padding, axis=1), first),
        op.Unsqueeze(op.Concat(re_z, re_r, re_n, axis=0), first),
        op.Unsqueeze(op.Concat(bi_z, bi_r, bi_n, br_z, br_r, br_n, axis=0), first),
        hidden_size=hidden,
        linear_before_reset=1,
    )
    return op.Transpose(op.Squeeze(states, op.Constant(value_ints=[1])), perm=[1, 0, 2])


def _column(rows: int, value: float) -> onnx.TensorProto:
    return onnx.helper.make_tensor("column", onnx.TensorProto.FLOAT, (rows, 1), [value] * rows)


def translations() -> Mapping[Callable[..., Any], Callable[..., Any]]:
    """What ``torch.onnx.export`` is to write for our operators."""
    operators = torch.ops.ctrlift
    return {
        operators.attention_gru_final.default: _attention_gru_final,
        operators.attention_gru_states.default: _attention_gru_states,
        operators.gru_states.default: _gru_states,
    }

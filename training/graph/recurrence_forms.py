"""The recurrences of ``opaque`` written in ONNX, in the forms that ONNX Runtime runs fastest.

An exporter would unroll them over the example's history; here they are one ``GRU`` node, or one ``Scan`` whose body
holds as few nodes as the recurrence allows: at serving sizes a step costs about as much to dispatch as to compute. Time
is the outermost axis and candidates are the innermost one: what a user's candidates share broadcasts for free, and a
step is a product of (G*H, H) with (H, C).

Letters: U users, C candidates, T steps, D width, H hidden width, G blocks of gates (3: u, r, n; 2: r, n).
"""

# mypy: ignore-errors
# The builder of onnxscript makes an operator of every attribute it is asked for, which no type can say.

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

FLOAT = ir.DataType.FLOAT
Inputs = Sequence[ir.Value]
Attributes = Mapping[str, Any]


def attention_gru_final(op, inputs: Inputs, attributes: Attributes):
    """Last state (H, U, C) of gates (T, G*H, U), weight_hh, bias_n, attention (T, U, C) and initial (H, U, C)."""
    gates, weight_hh, bias_n, attention, initial = inputs
    start = op.Transpose(initial, perm=[1, 0, 2])
    final, _ = _users_apart(op, op.Transpose(gates, perm=[0, 2, 1]), weight_hh, bias_n, attention, start)
    return op.Transpose(final, perm=[1, 0, 2])


def attention_gru_states(op, inputs: Inputs, attributes: Attributes):
    """Every state (T, H, U, C) of the same."""
    gates, weight_hh, bias_n, attention, initial = inputs
    start = op.Transpose(initial, perm=[1, 0, 2])
    _, states = _users_apart(op, op.Transpose(gates, perm=[0, 2, 1]), weight_hh, bias_n, attention, start)
    return op.Transpose(states, perm=[0, 2, 1, 3])


def final_state(op, gates, weight_hh, bias_n, attention):
    """Last state (U, C, H) from zeros, of gates (T, U, G*H) and attention (T, U, C)."""
    width, rows = int(bias_n.shape[0]), int(weight_hh.shape[0])
    users, candidates = op.Shape(attention, start=1, end=2), op.Shape(attention, start=2, end=3)
    # Values of a graph around a branch are seen inside it.
    columns, zero = op.Mul(users, candidates), op.Constant(value_float=0.0)
    pairs = op.Concat(users, candidates, [width], axis=0)

    def one_column_a_pair(inner):
        by_feature = inner.Transpose(gates, perm=[0, 2, 1])
        halves = [_part(inner, by_feature, block, block + width, 1) for block in range(0, rows, width)]
        shares = inner.Reshape(attention, inner.Concat([0, 1], columns, axis=0))
        start = inner.Expand(zero, inner.Concat([width], columns, axis=0))
        final = _by_gemm(inner, start, [*halves, shares], weight_hh, bias_n)
        return inner.Reshape(inner.Transpose(final, perm=[1, 0]), pairs)

    def users_apart(inner):
        start = inner.Expand(zero, inner.Concat(users, [width], candidates, axis=0))
        final, _ = _users_apart(inner, gates, weight_hh, bias_n, attention, start)
        return inner.Transpose(final, perm=[0, 2, 1])

    # One user's gates broadcast over all columns, and with one candidate a user there is nothing to broadcast.
    one = op.Constant(value_ints=[1])
    flat = op.Squeeze(op.Or(op.Equal(users, one), op.Equal(candidates, one)), [0])
    return op.If(
        flat,
        then_branch=op.builder.subgraph(one_column_a_pair, [], [ir.val("of_columns", FLOAT)], name="columns"),
        else_branch=op.builder.subgraph(users_apart, [], [ir.val("of_users", FLOAT)], name="users"),
    )


def _by_gemm(op, start, sequences: Inputs, weight_hh, bias_n):
    """Last state (H, U*C): a product a gate, into which a runtime fuses bias and sigmoid.

    Sequences, (T, ...) each: the input halves of u (if there is one), r and n (H, U), and attention (1, U*C); U is 1 or
    C is.
    """
    width, rows = int(bias_n.shape[0]), int(weight_hh.shape[0])
    *squashing, of_n = (_part(op, weight_hh, block, block + width) for block in range(0, rows, width))
    recurrent_n = op.Unsqueeze(bias_n, [1])

    def step(inner, h, *given):
        *of_input, from_n, share = given
        *u, r = (inner.Sigmoid(inner.Gemm(kernel, h, half)) for kernel, half in zip(squashing, of_input, strict=True))
        proposed = inner.Tanh(inner.Add(inner.Mul(r, inner.Gemm(of_n, h, recurrent_n)), from_n))
        return _moved(inner, h, proposed, inner.Mul(u[0], share) if u else share)

    return _scan(op, start, sequences, step)[0]


def _users_apart(op, gates, weight_hh, bias_n, attention, start):
    """Last state (U, H, C) and every state (T, U, H, C): one product of all gates a step."""
    width, rows = int(bias_n.shape[0]), int(weight_hh.shape[0])
    columns = op.Unsqueeze(gates, [3])  # (T, U, G*H, 1)
    from_n = _part(op, columns, rows - width, rows, 2)
    # b_n joins the n block of the product, so one addition serves all blocks.
    recurrent_n = op.Expand(op.Unsqueeze(bias_n, [1]), op.Shape(from_n))
    added = op.Concat(_part(op, columns, 0, rows - width, 2), recurrent_n, axis=2)
    blocks = rows // width

    def step(inner, h, add, from_n, share):
        product = inner.Add(inner.MatMul(weight_hh, h), add)
        *u, r, n = inner.Split(product, axis=1, num_outputs=blocks, _outputs=blocks)
        proposed = inner.Tanh(inner.Add(inner.Mul(inner.Sigmoid(r), n), from_n))
        return _moved(inner, h, proposed, inner.Mul(inner.Sigmoid(u[0]), share) if u else share)

    return _scan(op, start, [added, from_n, op.Unsqueeze(attention, [2])], step, every=True)


def _moved(op, h, proposed, share):
    return op.Add(h, op.Mul(share, op.Sub(proposed, h)))


def _scan(op, start, sequences: Inputs, step, every: bool = False):
    """The last state of a recurrence over sequences (T, ...), and where wanted every one."""
    names = ("h", *(f"sequence_{place}" for place in range(len(sequences))))
    values = [ir.val(name, FLOAT) for name in names]

    def body(inner, *given):
        h_next = step(inner, *given)
        return (h_next, inner.Identity(h_next)) if every else (h_next,)

    outputs = [ir.val("h_next", FLOAT), ir.val("h_kept", FLOAT)][: 2 if every else 1]
    graph = op.builder.subgraph(body, values, outputs, name="step")
    found = op.Scan(start, *sequences, body=graph, num_scan_inputs=len(sequences), _outputs=len(outputs))
    return found if every else (found,)


def _part(op, tensor, begin: int, end: int, axis: int = 0):
    return op.Slice(tensor, [begin], [end], [axis])


def gru_states(op, inputs: Inputs, attributes: Attributes):
    """States (U, T, H) of a masked GRU: torch's row blocks are r, z, n and the node's z, r, n.

    The node knows no mask with holes. A further input column, 1 on padding, drives z (the share kept) there to 1, which
    carries the state.
    """
    sequence, mask, weight_ih, weight_hh, bias_ih, bias_hh = inputs
    hidden = int(weight_hh.shape[1])
    padding = op.Unsqueeze(op.Cast(op.Not(mask), to=FLOAT), [2])
    on_padding = np.repeat(np.float32([1000.0, 0.0, 0.0]), hidden).reshape(-1, 1)
    states, _ = op.GRU(
        op.Transpose(op.Concat(sequence, padding, axis=2), perm=[1, 0, 2]),
        op.Unsqueeze(op.Concat(_z_first(op, weight_ih, hidden), op.Constant(value=ir.tensor(on_padding)), axis=1), [0]),
        op.Unsqueeze(_z_first(op, weight_hh, hidden), [0]),
        op.Unsqueeze(op.Concat(_z_first(op, bias_ih, hidden), _z_first(op, bias_hh, hidden), axis=0), [0]),
        hidden_size=hidden,
        linear_before_reset=1,
        _outputs=2,
    )
    return op.Transpose(op.Squeeze(states, [1]), perm=[1, 0, 2])


def _z_first(op, stacked, hidden: int):
    r, z, n = (_part(op, stacked, block * hidden, (block + 1) * hidden) for block in range(3))
    return op.Concat(z, r, n, axis=0)

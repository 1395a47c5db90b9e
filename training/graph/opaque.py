"""Our torch operators as single ONNX nodes of domain ``ctrlift``, without a body.

This is how a network leaves the exporter. ``expansion`` then gives every node its body in plain ONNX; whoever runs a
node by other means finds it here whole, with all its tensors as inputs.

Inputs, in order:
    evolved_interest  queries, states, mask, scoring..., gates_weight, gates_bias, weight_hh, bias_n
    target_interest   queries, keys, mask, scoring...
    gru_states        sequence, mask, weight_ih, weight_hh, bias_ih, bias_hh
    attention_gru_*   gates, weight_hh, bias_n, attention, initial
Attributes: activation and scale of the first two, mode of target_interest. What the tensors are is said in
``models.layers.interest_operators``, ``models.layers.gru`` and ``models.layers.attention_gru``.
"""

# mypy: ignore-errors
# onnxscript annotates its functions with the types of eager values; these are only ever turned into graphs.

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import onnx
import torch
from onnxscript import BOOL, FLOAT
from onnxscript.values import Op, Opset

# Importing the layers registers the operators that are translated here.
from models.layers import attention_gru, gru, interest_operators  # noqa: F401

DOMAIN: Final = "ctrlift"
EVOLVED_INTEREST: Final = "evolved_interest"
TARGET_INTEREST: Final = "target_interest"
GRU_STATES: Final = "gru_states"
ATTENTION_GRU_FINAL: Final = "attention_gru_final"
ATTENTION_GRU_STATES: Final = "attention_gru_states"

_OPSET = Opset(DOMAIN, 1)


def _node(name: str, attributes: Mapping[str, onnx.defs.OpSchema.AttrType]) -> Op:
    parameter = onnx.defs.OpSchema.FormalParameter
    schema = onnx.defs.OpSchema(
        name,
        DOMAIN,
        1,
        inputs=[
            parameter(
                "inputs", "V", param_option=onnx.defs.OpSchema.FormalParameterOption.Variadic, is_homogeneous=False
            )
        ],
        outputs=[parameter("result", "T")],
        type_constraints=[("V", ["tensor(float)", "tensor(bool)"], ""), ("T", ["tensor(float)"], "")],
        attributes=[onnx.defs.OpSchema.Attribute(key, kind, required=True) for key, kind in attributes.items()],
    )
    return Op(_OPSET, name, schema)


_TEXT, _NUMBER = onnx.defs.OpSchema.AttrType.STRING, onnx.defs.OpSchema.AttrType.FLOAT
_EVOLVED = _node(EVOLVED_INTEREST, {"activation": _TEXT, "scale": _NUMBER})
_TARGET = _node(TARGET_INTEREST, {"activation": _TEXT, "mode": _TEXT, "scale": _NUMBER})
_GRU = _node(GRU_STATES, {})
_FINAL = _node(ATTENTION_GRU_FINAL, {})
_STATES = _node(ATTENTION_GRU_STATES, {})


def _evolved_interest(
    queries: FLOAT[...],
    states: FLOAT[...],
    mask: BOOL[...],
    scoring: Sequence[FLOAT[...]],
    gates_weight: FLOAT[...],
    gates_bias: FLOAT[...],
    weight_hh: FLOAT[...],
    bias_n: FLOAT[...],
    activation: str,
    scale: float,
) -> FLOAT[...]:
    """One node."""
    gates = (gates_weight, gates_bias, weight_hh, bias_n)
    return _EVOLVED(queries, states, mask, *scoring, *gates, activation=activation, scale=scale)


def _target_interest(
    queries: FLOAT[...],
    keys: FLOAT[...],
    mask: BOOL[...],
    scoring: Sequence[FLOAT[...]],
    activation: str,
    mode: str,
    scale: float,
) -> FLOAT[...]:
    """One node."""
    return _TARGET(queries, keys, mask, *scoring, activation=activation, mode=mode, scale=scale)


def _gru_states(
    sequence: FLOAT[...],
    mask: BOOL[...],
    weight_ih: FLOAT[...],
    weight_hh: FLOAT[...],
    bias_ih: FLOAT[...],
    bias_hh: FLOAT[...],
) -> FLOAT[...]:
    """One node."""
    return _GRU(sequence, mask, weight_ih, weight_hh, bias_ih, bias_hh)


def _attention_gru_final(
    gates: FLOAT[...], weight_hh: FLOAT[...], bias_n: FLOAT[...], attention: FLOAT[...], initial: FLOAT[...]
) -> FLOAT[...]:
    """One node."""
    return _FINAL(gates, weight_hh, bias_n, attention, initial)


def _attention_gru_states(
    gates: FLOAT[...], weight_hh: FLOAT[...], bias_n: FLOAT[...], attention: FLOAT[...], initial: FLOAT[...]
) -> FLOAT[...]:
    """One node."""
    return _STATES(gates, weight_hh, bias_n, attention, initial)


def translations() -> Mapping[Callable[..., Any], Callable[..., Any]]:
    """What ``torch.onnx.export`` is to write for our operators."""
    operators = torch.ops.ctrlift
    return {
        operators.evolved_interest.default: _evolved_interest,
        operators.target_interest.default: _target_interest,
        operators.gru_states.default: _gru_states,
        operators.attention_gru_final.default: _attention_gru_final,
        operators.attention_gru_states.default: _attention_gru_states,
    }

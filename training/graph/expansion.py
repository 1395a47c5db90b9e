"""Bodies in plain ONNX for the nodes that ``opaque`` left without one."""

# mypy: ignore-errors
# The builder of onnxscript makes an operator of every attribute it is asked for, which no type can say.

from collections.abc import Callable, Mapping
from typing import Any, Final

import onnx_ir as ir
import onnxscript

from training.graph import interest_forms, opaque, recurrence_forms

OPSET: Final = 18
_FORMS: Final[Mapping[str, Callable[..., Any]]] = {
    opaque.EVOLVED_INTEREST: interest_forms.evolved_interest,
    opaque.TARGET_INTEREST: interest_forms.target_interest,
    opaque.GRU_STATES: recurrence_forms.gru_states,
    opaque.ATTENTION_GRU_FINAL: recurrence_forms.attention_gru_final,
    opaque.ATTENTION_GRU_STATES: recurrence_forms.attention_gru_states,
}


def expand(model: ir.Model) -> None:
    """Give every opaque node a function of its own, in place: the model can then be run, and optimised (inlined).

    A function a node and not one an operator, because the number of inputs differs, and because a form may depend on
    the attributes.
    """
    for place, node in enumerate(node for node in model.graph if node.domain == opaque.DOMAIN):
        form = _FORMS[node.op_type]
        node.overload = str(place)
        attributes = {name: attribute.value for name, attribute in node.attributes.items()}
        inputs = [
            ir.Value(name=f"input_{i}", type=given.type, shape=given.shape) for i, given in enumerate(node.inputs)
        ]
        function = onnxscript.build_function(
            lambda op, *given, form=form, attributes=attributes: form(op, given, attributes),
            inputs,
            domain=opaque.DOMAIN,
            name=node.op_type,
            opset_imports={"": OPSET},
        )
        function.overload = node.overload
        node.attributes.clear()
        model.functions[function.identifier()] = function

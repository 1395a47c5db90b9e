"""Eager network to ONNX: one graph for every number of users, candidates, steps, doses and samples."""

from pathlib import Path

import onnx_ir as ir
import onnxscript.optimizer
import torch
from torch import Tensor, nn

from models.inputs import InputLayout
from training.graph.expansion import OPSET, expand
from training.graph.opaque import translations
from training.graph.signature import GraphSignature, click_signature
from training.graph.upstream_noise import silenced

LARGEST_SINGLE_FILE_BYTES = 1_500_000_000
# Of a constant that is folded: kernels of any layer, no table.
FOLDED_BYTES = 1_000_000


def export_onnx(
    model: nn.Module,
    path: Path | str,
    example: tuple[Tensor, ...] | None = None,
    signature: GraphSignature | None = None,
) -> None:
    """Write a network as an ONNX file: ``export_program``, then ``publish``."""
    publish(export_program(model, example, signature), path)


def export_program(
    model: nn.Module, example: tuple[Tensor, ...] | None = None, signature: GraphSignature | None = None
) -> torch.onnx.ONNXProgram:
    """A network in ONNX, not optimised, with attention, evolution and GRU as the single nodes of ``opaque``.

    All inputs are in the graph, also those that the network does not read.

    Args:
        model: takes and returns what the signature says; exported in evaluation mode, its own mode is left as it was.
        example: inputs to trace with; made from the signature by default. Dynamic axes must be at least 2 and differ.
        signature: by default that of a network of users and candidates with ``model.config.layout``.

    Raises:
        ValueError: if there is no signature and the model has no layout, or the example's sizes are unfit.
    """
    known = signature if signature is not None else click_signature(_layout_of(model))
    inputs = known.example() if example is None else example
    known.check(inputs)
    was_training = model.training
    model.eval()
    try:
        with silenced(), torch.no_grad():
            program = torch.onnx.export(
                model,
                inputs,
                dynamo=True,
                input_names=list(known.inputs),
                output_names=list(known.outputs),
                dynamic_shapes=known.dynamic_shapes(),
                custom_translation_table=dict(translations()),
                opset_version=OPSET,
                optimize=False,
                verbose=False,
            )
    finally:
        model.train(was_training)
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    return program


def publish(program: torch.onnx.ONNXProgram, path: Path | str) -> None:
    """Write what ``export_program`` made as a file in plain ONNX, optimised.

    Weights are inside the file unless it would pass 1.5 GB; then they are beside it, in ``<path>.data``.
    """
    expand(program.model)
    program.model = optimised(program.model)
    size = sum(value.const_value.nbytes for value in program.model.graph.initializers.values() if value.const_value)
    program.save(str(path), external_data=size > LARGEST_SINGLE_FILE_BYTES)


def optimised(model: ir.Model) -> ir.Model:
    """The same model with its functions inlined and what is constant folded, but for what would copy a table."""
    with silenced():
        return onnxscript.optimizer.optimize(model, input_size_limit=FOLDED_BYTES, output_size_limit=FOLDED_BYTES)


def _layout_of(model: nn.Module) -> InputLayout:
    layout = getattr(getattr(model, "config", None), "layout", None)
    if not isinstance(layout, InputLayout):
        raise ValueError("signature must be given for a model without config.layout, got None")
    return layout

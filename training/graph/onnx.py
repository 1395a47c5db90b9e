"""Eager network to ONNX: one graph for every number of users, candidates, steps, doses and samples."""

from pathlib import Path

import torch
from torch import Tensor, nn

from models.inputs import InputLayout
from training.graph.recurrence_onnx import translations
from training.graph.signature import GraphSignature, click_signature
from training.graph.upstream_noise import silenced

OPSET = 18
LARGEST_SINGLE_FILE_BYTES = 1_500_000_000


def export_onnx(
    model: nn.Module,
    path: Path | str,
    example: tuple[Tensor, ...] | None = None,
    signature: GraphSignature | None = None,
) -> None:
    """Write a network as an ONNX file.

    All inputs are in the graph, also those that the network does not read. Weights are inside the file unless it
    would pass 1.5 GB; then they are beside it, in ``<path>.data``.

    Args:
        model: takes and returns what the signature says; exported in evaluation mode, its own mode is left as it was.
        path: of the file.
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
                verbose=False,
            )
    finally:
        model.train(was_training)
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    program.save(str(path), external_data=size > LARGEST_SINGLE_FILE_BYTES)


def _layout_of(model: nn.Module) -> InputLayout:
    layout = getattr(getattr(model, "config", None), "layout", None)
    if not isinstance(layout, InputLayout):
        raise ValueError("signature must be given for a model without config.layout, got None")
    return layout

"""Eager network to ONNX: one graph for every number of users, candidates and steps."""

from pathlib import Path

import torch
from torch import Tensor, nn

from models.inputs import INPUT_NAMES, OUTPUT_NAMES, InputLayout
from training.graph.recurrence_onnx import translations
from training.graph.upstream_noise import silenced

OPSET = 18
LARGEST_SINGLE_FILE_BYTES = 1_500_000_000
# Sizes that occur nowhere else in a network, so that no axis is taken for another or for a constant.
_USERS, _CANDIDATES, _STEPS = 2, 3, 7


def example_inputs(layout: InputLayout) -> tuple[Tensor, ...]:
    """Inputs that fit a layout, for tracing: ids all 1, numbers 0, every step real."""
    widths = layout.widths()
    leads = {"user": (_USERS,), "candidate": (_USERS, _CANDIDATES), "behaviour": (_USERS, _STEPS)}
    tensors: list[Tensor] = []
    for name in INPUT_NAMES:
        shape = (*leads[name.split("_")[0]], widths[name])
        if name.endswith("_ids"):
            tensors.append(torch.ones(shape, dtype=torch.int64))
        elif name.endswith("_mask"):
            tensors.append(torch.ones(shape, dtype=torch.bool))
        else:
            tensors.append(torch.zeros(shape))
    return tuple(tensors)


def export_onnx(model: nn.Module, path: Path | str, example: tuple[Tensor, ...] | None = None) -> None:
    """Write a network as an ONNX file.

    All seven inputs are in the graph, also those that the network does not read. Weights are inside the file unless it
    would pass 1.5 GB; then they are beside it, in ``<path>.data``.

    Args:
        model: takes the tensors of ``INPUT_NAMES`` and returns logits (U, C, K); exported in evaluation mode, its own
            mode is left as it was.
        path: of the file.
        example: inputs to trace with; by default made from ``model.config.layout``. U, C and T stay dynamic: they must
            be at least 2 and differ.

    Raises:
        ValueError: if there is no example and the model has no layout, or the example's sizes are unfit.
    """
    inputs = _example_of(model) if example is None else example
    _check_sizes(inputs)
    was_training = model.training
    model.eval()
    try:
        with silenced(), torch.no_grad():
            program = torch.onnx.export(
                model,
                inputs,
                dynamo=True,
                input_names=list(INPUT_NAMES),
                output_names=list(OUTPUT_NAMES),
                dynamic_shapes=_dynamic_shapes(),
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


def _example_of(model: nn.Module) -> tuple[Tensor, ...]:
    layout = getattr(getattr(model, "config", None), "layout", None)
    if not isinstance(layout, InputLayout):
        raise ValueError("example must be given for a model without config.layout, got None")
    return example_inputs(layout)


def _check_sizes(inputs: tuple[Tensor, ...]) -> None:
    if len(inputs) != len(INPUT_NAMES):
        raise ValueError(
            f"example must hold the {len(INPUT_NAMES)} tensors {', '.join(INPUT_NAMES)}, got {len(inputs)}"
        )
    sizes = (inputs[0].size(0), inputs[2].size(1), inputs[4].size(1))
    # An exporter takes a size of 1, or one equal to another axis, for a constant.
    if min(sizes) < 2 or len(set(sizes)) != 3:
        raise ValueError(f"example must have different U, C and T of at least 2, got {sizes}")


def _dynamic_shapes() -> tuple[dict[int, object], ...]:
    users, candidates, steps = torch.export.Dim("U"), torch.export.Dim("C"), torch.export.Dim("T")
    axes = {"user": {0: users}, "candidate": {0: users, 1: candidates}, "behaviour": {0: users, 1: steps}}
    return tuple(dict(axes[name.split("_")[0]]) for name in INPUT_NAMES)

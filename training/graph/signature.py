"""What goes into a graph and what comes out of it: names in order, and which axes are dynamic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from models.inputs import INPUT_NAMES, OUTPUT_NAMES, InputLayout
from models.uplift.inputs import INPUT_NAMES as USER_INPUT_NAMES
from models.uplift.inputs import OutcomeKind, input_names, output_names

# Sizes that occur nowhere else in a network, so that no axis is taken for another or for a constant.
_SIZES: Final[Mapping[str, int]] = {"U": 2, "C": 3, "T": 7, "G": 5, "M": 11}
_DTYPES: Final = {"int64": torch.int64, "float32": torch.float32, "bool": torch.bool}


@dataclass(frozen=True, slots=True)
class GraphInput:
    """One input: its type, and its axes as letters where they are dynamic and None where the layout says the width."""

    dtype: str
    axes: tuple[str | None, ...]


_INPUTS: Final[Mapping[str, GraphInput]] = {
    "user_ids": GraphInput("int64", ("U", None)),
    "user_numbers": GraphInput("float32", ("U", None)),
    "candidate_ids": GraphInput("int64", ("U", "C", None)),
    "candidate_numbers": GraphInput("float32", ("U", "C", None)),
    "behaviour_ids": GraphInput("int64", ("U", "T", None)),
    "behaviour_numbers": GraphInput("float32", ("U", "T", None)),
    "behaviour_mask": GraphInput("bool", ("U", "T", None)),
    "doses": GraphInput("float32", ("U", None)),
    "dose_grid": GraphInput("float32", ("G",)),
    "noise": GraphInput("float32", ("M", "U", None)),
}
SAMPLES_OUTPUT: Final = "samples"


@dataclass(frozen=True, slots=True)
class GraphSignature:
    """A graph's inputs and outputs, in order.

    Attributes:
        widths: of the inputs' last axis, by name, for those whose last axis is fixed.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    widths: Mapping[str, int]

    def dtype(self, name: str) -> str:
        """Type of an input."""
        return _INPUTS[name].dtype

    def shape(self, name: str) -> tuple[str | int, ...]:
        """Axes of an input: letters are dynamic."""
        return tuple(self.widths[name] if axis is None else axis for axis in _INPUTS[name].axes)

    def example(self) -> tuple[Tensor, ...]:
        """Inputs to trace with: ids all 1, numbers 0, every step real."""
        tensors: list[Tensor] = []
        for name in self.inputs:
            shape = tuple(axis if isinstance(axis, int) else _SIZES[axis] for axis in self.shape(name))
            dtype = _DTYPES[_INPUTS[name].dtype]
            tensors.append(torch.zeros(shape) if dtype == torch.float32 else torch.ones(shape, dtype=dtype))
        return tuple(tensors)

    def dynamic_shapes(self) -> tuple[dict[int, object], ...]:
        """The dynamic axes of every input, as ``torch.export`` takes them."""
        letters = {letter: torch.export.Dim(letter) for letter in _SIZES}
        return tuple(
            {place: letters[axis] for place, axis in enumerate(_INPUTS[name].axes) if axis is not None}
            for name in self.inputs
        )

    def check(self, inputs: tuple[Tensor, ...]) -> None:
        """Refuse inputs that an exporter would misread: it takes a size of 1, or one of another axis, for a constant.

        Raises:
            ValueError: if their number is wrong, or dynamic axes are below 2 or equal.
        """
        if len(inputs) != len(self.inputs):
            raise ValueError(
                f"example must hold the {len(self.inputs)} tensors {', '.join(self.inputs)}, got {len(inputs)}"
            )
        sizes: dict[str, int] = {}
        for name, tensor in zip(self.inputs, inputs, strict=True):
            for place, axis in enumerate(_INPUTS[name].axes):
                if axis is not None:
                    sizes[axis] = tensor.size(place)
        if min(sizes.values()) < 2 or len(set(sizes.values())) != len(sizes):
            named = ", ".join(sizes)
            raise ValueError(f"example must have different {named} of at least 2, got {tuple(sizes.values())}")


def click_signature(layout: InputLayout) -> GraphSignature:
    """Of a network of users and candidates."""
    return GraphSignature(INPUT_NAMES, OUTPUT_NAMES, layout.widths())


def uplift_signature(
    layout: InputLayout, outcome: OutcomeKind, treatments: int, *, doses: bool, density: bool
) -> GraphSignature:
    """Of a network of treatment effects."""
    return GraphSignature(
        input_names(doses=doses),
        output_names(outcome, doses=doses, density=density),
        _user_widths(layout) | {"doses": treatments},
    )


def samples_signature(layout: InputLayout, noise_width: int) -> GraphSignature:
    """Of the graph that gives outcome samples; without noise where the samples are an ensemble's members."""
    inputs = (*USER_INPUT_NAMES, "noise") if noise_width else USER_INPUT_NAMES
    return GraphSignature(inputs, (SAMPLES_OUTPUT,), _user_widths(layout) | {"noise": noise_width})


def _user_widths(layout: InputLayout) -> dict[str, int]:
    widths = layout.widths()
    return {name: widths[name] for name in USER_INPUT_NAMES}

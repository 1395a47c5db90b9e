"""Whether exported graphs of treatment effects are the network: the same inputs through both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bundle.encode import Encoder
from bundle.population import rows_from_users
from bundle.treatment import Samples, UpliftPart
from bundle.uplift_golden import UpliftGoldenRow
from bundle.uplift_inputs import dose_grid, graph_inputs
from models.uplift.inputs import INPUT_NAMES
from training.datasets import Part
from training.errors import ExportFailed
from training.graph.signature import SAMPLES_OUTPUT
from training.parity import OutputsRunner

Arrays = dict[str, NDArray[Any]]
Outputs = Mapping[str, NDArray[np.float64]]
# Of a value of size 1 or below; larger values may differ by as much of their size.
MAX_DIFFERENCE: Final = 1e-5
# Users at once, and points of the dose grid; the exporters see other sizes, so a frozen axis cannot hide.
BLOCKS: Final = (1, 7, 1024)
GRIDS: Final = (2, 21, 201)
SAMPLED_USERS: Final = (1, 7)


def golden_probes(
    encoder: Encoder, part: UpliftPart, golden: Sequence[UpliftGoldenRow]
) -> Iterator[tuple[str, Arrays, Outputs]]:
    """Name, inputs and eager outputs of each golden request."""
    for number, row in enumerate(golden):
        encoded = encoder.encode(rows_from_users(encoder.fitted, row.query).rows)
        arrays = graph_inputs(encoded, part, row.doses, row.points) if part.doses else graph_inputs(encoded, part)
        yield f"golden request {number}", arrays, row.outputs


def block_probes(
    encoder: Encoder, network: nn.Module, part: UpliftPart, rows: Part, outputs: Sequence[str]
) -> Iterator[tuple[str, Arrays, Outputs]]:
    """Name, inputs and eager outputs of blocks of users at every grid; rows are repeated where there are too few."""
    generator = np.random.default_rng(0)
    for users in BLOCKS:
        block = rows.take(np.resize(np.arange(len(rows)), users).astype(np.int64))
        arrays = graph_inputs(encoder.encode(block.rows), part)
        if not part.doses:
            yield f"{users} users", arrays, eager_outputs(network, arrays, outputs)
            continue
        arrays["doses"] = generator.random(arrays["doses"].shape, dtype=np.float32)
        for points in GRIDS:
            arrays["dose_grid"] = dose_grid(points)
            yield f"{users} users, {points} doses", arrays, eager_outputs(network, arrays, outputs)


def sample_probes(
    encoder: Encoder, sampler: nn.Module, part: UpliftPart, rows: Part, samples: Samples
) -> Iterator[tuple[str, Arrays, Outputs]]:
    """Name, inputs and eager samples for few users, with the same noise for every runtime."""
    generator = np.random.default_rng(samples.seed)
    for users in SAMPLED_USERS:
        block = rows.take(np.resize(np.arange(len(rows)), users).astype(np.int64))
        inputs = graph_inputs(encoder.encode(block.rows), part)
        arrays = {name: inputs[name] for name in INPUT_NAMES}
        if samples.noise_width:
            arrays["noise"] = generator.random((samples.count, users, samples.noise_width), dtype=np.float32)
        yield f"samples of {users} users", arrays, eager_outputs(sampler, arrays, (SAMPLES_OUTPUT,))


def eager_outputs(network: nn.Module, arrays: Arrays, outputs: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """What the network itself says, by name."""
    with torch.no_grad():
        found = network(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays.values()))
    listed = (found,) if isinstance(found, torch.Tensor) else found
    return {name: tensor.double().numpy() for name, tensor in zip(outputs, listed, strict=True)}


def check_graph(probes: Iterator[tuple[str, Arrays, Outputs]], graph: OutputsRunner, what: str) -> float:
    """The largest difference of a graph from the network, in units of 1 or of the value where that is larger.

    Raises:
        ExportFailed: naming the output, the probe and the difference, if it is too large.
    """
    largest = 0.0
    for name, arrays, expected in probes:
        found = graph(arrays)
        for output, values in expected.items():
            difference = scaled_difference(found[output], values)
            largest = max(largest, difference)
            if not difference <= MAX_DIFFERENCE:
                raise ExportFailed(
                    f"the {what} differs from the network by {difference:.2e} in {output} on {name} (at most "
                    f"{MAX_DIFFERENCE:.0e} is allowed): nothing was published"
                )
    return largest


def scaled_difference(found: NDArray[np.float64], expected: NDArray[np.float64]) -> float:
    """Largest difference relative to the larger of 1 and the expected value; infinite where one is not finite."""
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float((np.abs(found - expected) / np.maximum(1.0, np.abs(expected))).max(initial=0.0))

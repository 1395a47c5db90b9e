"""Whether a bundle is served with the compiled operators: only where they are there and give the graph's own logits."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bundle.errors import BundleRefused
from bundle.loading import Bundle
from bundle.manifest import TensorSpec
from service.engines.base import Engine, EngineError
from service.engines.kernel.engine import KernelEngine
from service.engines.kernel.library import KernelUnavailable, Library, worthwhile_library
from service.engines.kernel.operators import OperatorError

log = logging.getLogger(__name__)

TOLERANCE: Final = 1e-5
_PROBE_USERS, _PROBE_CANDIDATES, _PROBE_STEPS = 3, 21, 13


class SelfCheckFailed(Exception):
    """The operators do not give the graph's logits."""


def with_kernel(
    plain: Engine, bundle: Bundle, golden: Sequence[Mapping[str, NDArray[Any]]], threads: tuple[int, int] = (1, 1)
) -> Engine:
    """The faster engine for a bundle whose graph was cut, or the given one.

    Where the operators cannot be used, one line in the log says why; a bundle without a cut graph says nothing.

    Args:
        plain: Over the bundle's whole graph; closed where it is replaced.
        bundle: Opened.
        golden: The inputs of the bundle's golden requests.
        threads: Inside a piece of the graph, and nodes side by side.
    """
    if not bundle.has_stages:
        return plain
    try:
        engine = kernel_engine(worthwhile_library(), plain, bundle, threads)
        check(engine, plain, [*golden, random_inputs(bundle.manifest.inputs, golden)])
    except (KernelUnavailable, SelfCheckFailed, BundleRefused, EngineError, OperatorError, ValueError) as error:
        name = f"{bundle.manifest.name} {bundle.manifest.version}"
        log.warning("the compiled kernel is not used for %s, ONNX Runtime does its work: %s", name, error)
        return plain
    plain.close()
    return engine


def kernel_engine(library: Library, plain: Engine, bundle: Bundle, threads: tuple[int, int] = (1, 1)) -> KernelEngine:
    """The engine over a bundle's cut graph, unchecked.

    Raises:
        BundleRefused, EngineError, OperatorError, ValueError: The pieces or the parameters are not usable.
    """
    stages, parameters = bundle.stages()
    graphs = {file: bundle.graph_file(file) for file in stages.graphs}
    return KernelEngine(library, stages, graphs, parameters, plain.inputs, threads)


def check(engine: Engine, plain: Engine, probes: Sequence[Mapping[str, NDArray[Any]]]) -> None:
    """Compare two engines.

    Raises:
        SelfCheckFailed: Outputs differ by more than ``TOLERANCE``, of one or of the value where that is more.
        EngineError: One of them failed.
    """
    for number, inputs in enumerate(probes):
        expected = plain.outputs(inputs)
        for name, found in engine.outputs(inputs).items():
            if found.shape != expected[name].shape:
                raise SelfCheckFailed(f"self-check {number}: {name} has another shape than the graph gives")
            allowed = TOLERANCE * np.maximum(1.0, np.abs(expected[name]))
            same = np.abs(found - expected[name]) <= allowed
            if not np.all(same | (np.isnan(found) & np.isnan(expected[name]))):
                difference = float(np.max(np.abs(found - expected[name])))
                raise SelfCheckFailed(f"self-check {number}: {name} differs from the graph's by {difference:.2g}")


def random_inputs(specs: Sequence[TensorSpec], golden: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Inputs of several users with many candidates; their masks have holes, their ids are those of golden requests.

    The first user has no history.
    """
    rng = np.random.default_rng(0)
    sizes = {"U": _PROBE_USERS, "C": _PROBE_CANDIDATES, "T": _PROBE_STEPS}
    made: dict[str, NDArray[Any]] = {}
    for spec in specs:
        seen = [inputs[spec.name] for inputs in golden if spec.name in inputs]
        width = seen[0].shape[-1] if seen else 0
        shape = tuple(sizes.get(str(axis), width) for axis in spec.shape)
        if spec.dtype == "bool":
            values = rng.random(shape) < 0.7
            values[0] = False
        elif spec.dtype == "int64":
            values = np.zeros(shape, dtype=np.int64)
            for column in range(width):
                known = np.unique(np.concatenate([array[..., column].ravel() for array in seen]))
                values[..., column] = rng.choice(known, shape[:-1]) if known.size else 0
        else:
            values = rng.normal(size=shape).astype(spec.dtype)
        made[spec.name] = values
    return made

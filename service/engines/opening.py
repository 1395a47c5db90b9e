"""From a verified graph to the engine that the settings ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from bundle.errors import BundleRefused
from bundle.graph_tables import Graph
from bundle.loading import Bundle
from service.engines.base import Engine

EngineName = Literal["onnx", "torchscript"]
KernelChoice = Literal["auto", "off"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which graph format runs, and on how many threads.

    Attributes:
        engine: Graph format.
        threads: Threads inside one run.
        inter_threads: Graph nodes run side by side.
        kernel: auto: compiled code for attention and recurrence, where it is there and gives the graph's logits.
    """

    engine: EngineName = "onnx"
    threads: int = 1
    inter_threads: int = 1
    kernel: KernelChoice = "auto"


def open_engine(graph: Graph, inputs: Mapping[str, str], outputs: Sequence[str], options: EngineOptions) -> Engine:
    """Load a graph.

    Args:
        graph: The file's content, checked against its digest, and the tables beside it.
        inputs: Name -> dtype, in the order of the manifest.
        outputs: Names, in the order of the manifest.
        options: Which engine.

    Raises:
        BundleRefused: The graph takes inputs that the manifest does not have, or names a file it may not.
        EngineError: The engine refuses the graph.
    """
    if options.engine == "torchscript":
        # Imported here: only this setting may bring torch into the process.
        from service.engines.torchscript import TorchScriptEngine

        return TorchScriptEngine(graph.content, inputs, outputs, options.threads)
    from service.engines.onnx import OnnxEngine

    opened = OnnxEngine(graph, options.threads, options.inter_threads)
    if not opened.inputs.items() <= inputs.items():
        raise BundleRefused("signature", "the graph's inputs are not those of the manifest")
    return opened


def faster_engine(
    plain: Engine, bundle: Bundle, golden: Sequence[Mapping[str, NDArray[Any]]], options: EngineOptions
) -> Engine:
    """The engine that the options allow for a bundle whose whole graph is open: with compiled operators, or as it is.

    Args:
        plain: Over the whole graph; closed where it is replaced.
        bundle: Opened.
        golden: Inputs of its golden requests.
        options: Whether to try.
    """
    if options.engine != "onnx" or options.kernel == "off":
        return plain
    from service.engines.kernel.choosing import with_kernel

    return with_kernel(plain, bundle, golden, (options.threads, options.inter_threads))

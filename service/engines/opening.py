"""From a graph's bytes to the engine that the settings ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bundle.errors import BundleRefused
from service.engines.base import Engine

EngineName = Literal["onnx", "torchscript"]


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Which graph format runs, and on how many threads.

    Attributes:
        engine: Graph format.
        threads: Threads inside one run.
        inter_threads: Graph nodes run side by side.
    """

    engine: EngineName = "onnx"
    threads: int = 1
    inter_threads: int = 1


def open_engine(graph: bytes, inputs: Mapping[str, str], outputs: Sequence[str], options: EngineOptions) -> Engine:
    """Load a graph.

    Args:
        graph: The file's content, checked against its digest.
        inputs: Name -> dtype, in the order of the manifest.
        outputs: Names, in the order of the manifest.
        options: Which engine.

    Raises:
        BundleRefused: The graph takes inputs that the manifest does not have.
        EngineError: The engine refuses the graph.
    """
    if options.engine == "torchscript":
        # Imported here: only this setting may bring torch into the process.
        from service.engines.torchscript import TorchScriptEngine

        return TorchScriptEngine(graph, inputs, outputs, options.threads)
    from service.engines.onnx import OnnxEngine

    opened = OnnxEngine(graph, options.threads, options.inter_threads)
    if not opened.inputs.items() <= inputs.items():
        raise BundleRefused("signature", "the graph's inputs are not those of the manifest")
    return opened

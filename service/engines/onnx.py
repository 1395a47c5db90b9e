"""ONNX Runtime on the CPU, the first engine."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bundle.graph_tables import Graph, graph_tables
from service.engines.base import EngineError

_DTYPES = {"tensor(int64)": "int64", "tensor(float)": "float32", "tensor(bool)": "bool"}


def open_session(graph: Graph, intra_threads: int = 1, inter_threads: int = 1) -> ort.InferenceSession:
    """A session over a graph; its embedding tables stay in the mapped file and are not copied.

    The graph comes as bytes and not as a path: between the check of its digest and its parsing a file can be
    exchanged.

    Args:
        graph: The ONNX file's content and its table file.
        intra_threads: Threads inside a run; one is the fastest for a slate of a hundred and leaves cores to others.
        inter_threads: Nodes run side by side; more than one switches to the parallel executor.

    Raises:
        BundleRefused: The graph names a file that is not the bundle's table file, or a place that is not in it.
        EngineError: The file is not a graph that the runtime accepts.
    """
    options = _options(intra_threads, inter_threads)
    tables = {name: ort.OrtValue.ortvalue_from_numpy(values) for name, values in graph_tables(graph).items()}
    for name, value in tables.items():
        options.add_initializer(name, value)
    if tables:
        # The runtime wants to see the file that the graph names, though it takes the values from what it was given.
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.folder))
    try:
        session = ort.InferenceSession(graph.content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise EngineError(f"ONNX Runtime refuses the graph: {type(error).__name__}") from error
    session.mapped_tables = graph.tables  # it reads from the mapping without holding it, so its owner has to
    return session


def _options(intra_threads: int, inter_threads: int) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.intra_op_num_threads = intra_threads
    options.inter_op_num_threads = inter_threads
    options.execution_mode = ort.ExecutionMode.ORT_PARALLEL if inter_threads > 1 else ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3  # its warnings go to standard error past our log
    # Spinning threads burn the cores that requests wait for.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # Its other format would be recognised by a few bytes, and nobody has looked at the files that it may name.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    return options


class OnnxEngine:
    """See ``Engine``.

    Args:
        graph: The ONNX file's content and its table file.
        intra_threads: Threads inside a run.
        inter_threads: Nodes run side by side.

    Raises:
        BundleRefused, EngineError: See ``open_session``.
    """

    def __init__(self, graph: Graph, intra_threads: int = 1, inter_threads: int = 1) -> None:
        self._session: ort.InferenceSession | None = open_session(graph, intra_threads, inter_threads)
        self._inputs = {
            declared.name: _DTYPES.get(declared.type, declared.type) for declared in self._session.get_inputs()
        }
        self._outputs = [declared.name for declared in self._session.get_outputs()]

    @property
    def inputs(self) -> dict[str, str]:
        """See ``Engine``."""
        return self._inputs

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """See ``Engine``."""
        (logits,) = self._run(self._outputs[:1], inputs)
        return logits

    def outputs(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """See ``Engine``."""
        return dict(zip(self._outputs, self._run(self._outputs, inputs), strict=True))

    def _run(self, names: list[str], inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        session = self._session
        if session is None:
            raise EngineError("the engine is closed")
        # An exporter drops inputs that a network does not use, and the runtime refuses names it does not know.
        feed = {name: inputs[name] for name in self._inputs}
        try:
            found = session.run(names, feed)
        except Exception as error:
            raise EngineError(f"ONNX Runtime failed: {type(error).__name__}") from error
        return [np.asarray(array, dtype=np.float32) for array in found]

    def close(self) -> None:
        """See ``Engine``."""
        self._session = None

"""ONNX Runtime on the CPU, the first engine."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from service.engines.base import EngineError

_DTYPES = {"tensor(int64)": "int64", "tensor(float)": "float32", "tensor(bool)": "bool"}


class OnnxEngine:
    """See ``Engine``.

    Args:
        graph: The ONNX file's content. Not its path: between the check of its digest and its parsing a file can be
            exchanged, and a graph without a path cannot name further files to read.
        intra_threads: Threads inside a run; one is the fastest for a slate of a hundred and leaves cores to others.
        inter_threads: Nodes run side by side; more than one switches to the parallel executor.

    Raises:
        EngineError: The file is not a graph that the runtime accepts.
    """

    def __init__(self, graph: bytes, intra_threads: int = 1, inter_threads: int = 1) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = intra_threads
        options.inter_op_num_threads = inter_threads
        options.execution_mode = (
            ort.ExecutionMode.ORT_PARALLEL if inter_threads > 1 else ort.ExecutionMode.ORT_SEQUENTIAL
        )
        options.log_severity_level = 3  # its warnings go to standard error past our log
        # Spinning threads burn the cores that requests wait for.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: ort.InferenceSession | None = ort.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise EngineError(f"ONNX Runtime refuses the graph: {type(error).__name__}") from error
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

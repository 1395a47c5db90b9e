"""TorchScript: the only file of the service that may import torch, loaded only where models.engine = "torchscript"."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from service.engines.base import EngineError


class TorchScriptEngine:
    """See ``Engine``.

    Args:
        graph: The TorchScript file's content; its digest was checked before.
        inputs: Name -> dtype of the inputs in the order of the manifest.
        outputs: Names of the outputs in the order of the manifest.
        intra_threads: torch's threads, for the whole process.

    Raises:
        EngineError: The file is not a TorchScript graph.
    """

    def __init__(self, graph: bytes, inputs: Mapping[str, str], outputs: Sequence[str], intra_threads: int = 1) -> None:
        torch.set_num_threads(intra_threads)
        try:
            self._module: torch.jit.ScriptModule | None = torch.jit.load(io.BytesIO(graph), map_location="cpu").eval()  # type: ignore[no-untyped-call]  # untyped upstream
        except (RuntimeError, ValueError, OSError) as error:
            raise EngineError(f"torch refuses the graph: {type(error).__name__}") from error
        self._inputs = dict(inputs)
        self._outputs = list(outputs)

    @property
    def inputs(self) -> dict[str, str]:
        """See ``Engine``."""
        return self._inputs

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """See ``Engine``."""
        return self._run(inputs)[0]

    def outputs(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """See ``Engine``."""
        found = self._run(inputs)
        if len(found) != len(self._outputs):
            raise EngineError(f"the graph returned {len(found)} outputs, the manifest says {len(self._outputs)}")
        return dict(zip(self._outputs, found, strict=True))

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> list[NDArray[np.float32]]:
        module = self._module
        if module is None:
            raise EngineError("the engine is closed")
        tensors = [torch.from_numpy(np.ascontiguousarray(inputs[name])) for name in self._inputs]
        try:
            with torch.inference_mode():
                found = module(*tensors)
        except RuntimeError as error:
            raise EngineError(f"torch failed: {type(error).__name__}") from error
        return [
            np.asarray(tensor.numpy(), dtype=np.float32) for tensor in (found if isinstance(found, tuple) else (found,))
        ]

    def close(self) -> None:
        """See ``Engine``."""
        self._module = None

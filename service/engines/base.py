"""What the core asks of an engine: arrays in by name, logits or several named outputs out."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class EngineError(Exception):
    """The graph cannot be loaded or run."""


class Engine(Protocol):
    """One loaded graph. ``run`` may be called from several threads at once."""

    @property
    def inputs(self) -> dict[str, str]:
        """Name -> dtype of the inputs, in the graph's order."""
        ...

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """Logits (U, C, K) float32 for the arrays of ``EncodedRows.take``.

        Raises:
            EngineError: The run failed.
        """
        ...

    def outputs(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """All outputs by name, float32; for graphs that have several.

        Raises:
            EngineError: The run failed.
        """
        ...

    def close(self) -> None:
        """Give the memory back; a run that is under way still finishes."""
        ...

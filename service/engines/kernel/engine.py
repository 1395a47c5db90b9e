"""An engine over a graph that was cut around its operators: pieces in ONNX Runtime, operators in compiled code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from bundle.graph_tables import Graph
from bundle.stages import OperatorStage, Stages
from service.engines.base import EngineError
from service.engines.kernel.library import Library
from service.engines.kernel.operators import ExtractorOperator, InterestOperator, OperatorError
from service.engines.onnx import open_session

Values = dict[str, NDArray[Any]]
Step = Callable[[Values], None]


class KernelEngine:
    """See ``Engine``. Runs may overlap: each has values of its own, and each thread scratch memory of its own.

    Args:
        library: The compiled operators.
        stages: What runs in which order.
        graphs: The pieces of the graph by file.
        parameters: The operators' arrays by number of the stage.
        inputs: Name -> dtype of the whole graph's inputs.
        threads: Threads inside a piece, and pieces' nodes side by side.

    Raises:
        BundleRefused, EngineError: A piece cannot be opened.
        OperatorError: An operator's parameters do not fit.
    """

    def __init__(
        self,
        library: Library,
        stages: Stages,
        graphs: Mapping[str, Graph],
        parameters: Mapping[int, Sequence[NDArray[np.float32]]],
        inputs: Mapping[str, str],
        threads: tuple[int, int] = (1, 1),
    ) -> None:
        self.instruction_set = library.name
        self._inputs = {name: inputs[name] for name in stages.inputs if name in inputs}
        self._outputs = stages.outputs
        self._graphs = dict(graphs)  # their mapping holds the sessions' tables
        self._steps: list[Step] | None = [
            _operator_step(library, stage, parameters[number])
            if isinstance(stage, OperatorStage)
            else _graph_step(open_session(graphs[stage.graph], *threads), stage.inputs, stage.outputs)
            for number, stage in enumerate(stages.stages)
        ]

    @property
    def steps(self) -> list[Step]:
        """What each stage does with the values so far; for measuring them one by one."""
        return self._steps or []

    @property
    def inputs(self) -> dict[str, str]:
        """See ``Engine``."""
        return self._inputs

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """See ``Engine``."""
        return np.asarray(self._run(inputs)[self._outputs[0]], dtype=np.float32)

    def outputs(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """See ``Engine``."""
        values = self._run(inputs)
        return {name: np.asarray(values[name], dtype=np.float32) for name in self._outputs}

    def _run(self, inputs: Mapping[str, NDArray[Any]]) -> Values:
        steps = self._steps
        if steps is None:
            raise EngineError("the engine is closed")
        values = {name: inputs[name] for name in self._inputs}
        try:
            for step in steps:
                step(values)
        except Exception as error:
            raise EngineError(f"the compiled kernel or ONNX Runtime failed: {type(error).__name__}") from error
        return values

    def close(self) -> None:
        """See ``Engine``."""
        self._steps = None


def _graph_step(session: ort.InferenceSession, inputs: Sequence[str], outputs: Sequence[str]) -> Step:
    known = {declared.name for declared in session.get_inputs()}
    reads, names, run = tuple(name for name in inputs if name in known), list(outputs), session.run
    if missing := known - set(reads):
        raise EngineError(f"a piece of the graph reads {sorted(missing)[0]!r}, which its stage does not name")

    def step(values: Values) -> None:
        values.update(zip(names, run(names, {name: values[name] for name in reads}), strict=True))

    return step


def _operator_step(library: Library, stage: OperatorStage, parameters: Sequence[NDArray[np.float32]]) -> Step:
    operator = _operator(library, stage, parameters)
    reads, output = stage.inputs, stage.output

    def step(values: Values) -> None:
        values[output] = operator(*[values[name] for name in reads])

    return step


def _operator(
    library: Library, stage: OperatorStage, parameters: Sequence[NDArray[np.float32]]
) -> Callable[..., NDArray[np.float32]]:
    if len(stage.inputs) != (2 if stage.operator == "gru_states" else 3):
        raise OperatorError(f"{stage.operator} cannot have {len(stage.inputs)} inputs")
    if stage.operator == "gru_states":
        return ExtractorOperator(library, parameters)
    if stage.operator == "target_interest":
        softmax = stage.mode == "softmax"
        return InterestOperator(library, parameters, stage.activation, softmax=softmax, scale=stage.scale)
    scoring, gates = parameters[:-4], parameters[-4:]
    return InterestOperator(library, scoring, stage.activation, softmax=True, scale=stage.scale, gates=gates)

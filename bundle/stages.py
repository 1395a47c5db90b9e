"""A graph that was cut around operators with compiled code: its pieces in the order in which they run.

``stages.json`` lists them. A stage is either a piece of the graph, in an ONNX file of its own, or one operator, whose
parameters lie in ``operators.npz``. Values have the names that they had in the whole graph. A bundle may have it beside
its ONNX graph; whoever does not know it, or cannot use it, runs the whole graph and gets the same.
"""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

STAGES_FILE: Final = "stages.json"
OPERATORS_FILE: Final = "operators.npz"
_STAGE_GRAPH: Final = r"^stage[0-9]{1,2}\.onnx$"
_MOST_STAGES: Final = 64

Name = Annotated[str, StringConstraints(min_length=1, max_length=512)]
OperatorName = Literal["evolved_interest", "target_interest", "gru_states"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GraphStage(_Part):
    """A piece of the graph: values in, values out."""

    graph: Annotated[str, StringConstraints(pattern=_STAGE_GRAPH)]
    inputs: tuple[Name, ...]
    outputs: tuple[Name, ...] = Field(min_length=1)


class OperatorStage(_Part):
    """One operator; `parameters` is the number of its arrays, named `<number of the stage>.<i>` in operators.npz."""

    operator: OperatorName
    inputs: tuple[Name, ...] = Field(min_length=2, max_length=3)
    output: Name
    parameters: int = Field(ge=1, le=256)
    activation: str = "linear"
    mode: Literal["sum", "softmax"] = "softmax"
    scale: float = 1.0

    @property
    def outputs(self) -> tuple[str, ...]:
        """As a piece of the graph has them."""
        return (self.output,)


Stage = GraphStage | OperatorStage


class Stages(_Part):
    """stages.json: every value that a stage reads is an input of the graph or comes out of an earlier stage."""

    schema_version: Literal[1] = 1
    inputs: tuple[Name, ...]
    outputs: tuple[Name, ...] = Field(min_length=1)
    stages: tuple[Stage, ...] = Field(min_length=1, max_length=_MOST_STAGES)

    @model_validator(mode="after")
    def _known_values(self) -> Self:
        known = set(self.inputs)
        for number, stage in enumerate(self.stages):
            missing = sorted(set(stage.inputs) - known)
            again = sorted(set(stage.outputs) & known)
            if missing or again or len(set(stage.outputs)) != len(stage.outputs):
                raise ValueError(f"stage {number} reads {missing} before they exist or makes {again} anew")
            known |= set(stage.outputs)
        if not set(self.outputs) <= known:
            raise ValueError(f"outputs {sorted(set(self.outputs) - known)} come out of no stage")
        return self

    @property
    def graphs(self) -> list[str]:
        """Files of the pieces."""
        return [stage.graph for stage in self.stages if isinstance(stage, GraphStage)]


def write_stages(folder: Path, stages: Stages, parameters: Mapping[int, Sequence[NDArray[np.float32]]]) -> None:
    """Write stages.json and operators.npz; the pieces of the graph are the caller's.

    Args:
        folder: for both files.
        stages: in order.
        parameters: arrays by number of the stage, for every operator.
    """
    arrays: dict[str, Any] = {
        f"{stage}.{i}": array for stage, held in parameters.items() for i, array in enumerate(held)
    }
    np.savez(folder / OPERATORS_FILE, **arrays)
    (folder / STAGES_FILE).write_text(json.dumps(stages.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")


def stage_files(folder: Path) -> list[Path]:
    """What ``write_stages`` and its caller wrote into a folder; nothing where no graph was cut."""
    content = folder / STAGES_FILE
    if not content.is_file():
        return []
    return [content, folder / OPERATORS_FILE, *(folder / graph for graph in parse_stages(content.read_bytes()).graphs)]


def parse_stages(content: bytes) -> Stages:
    """stages.json.

    Raises:
        ValueError: It is not one.
    """
    try:
        return Stages.model_validate_json(content)
    except ValidationError as error:
        raise ValueError(f"{STAGES_FILE} is not usable: {error.errors()[0]['msg']}") from error


def parse_parameters(content: bytes, stages: Stages) -> dict[int, list[NDArray[np.float32]]]:
    """The operators' arrays by number of the stage, float32.

    Raises:
        ValueError: operators.npz is damaged, or lacks one.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return {
                number: [np.asarray(file[f"{number}.{i}"], dtype=np.float32) for i in range(stage.parameters)]
                for number, stage in enumerate(stages.stages)
                if isinstance(stage, OperatorStage)
            }
    except (KeyError, OSError, ValueError, EOFError) as error:
        raise ValueError(f"{OPERATORS_FILE} is not usable: {error}") from error

"""Cut a graph around its opaque operators, for an engine that has compiled code for them.

Every value gets a level: the number of operators on the longest way to it. The nodes of one level are a piece of the
graph, the operators of a level stand between that piece and the next. What depends on weights alone is no piece's own:
each piece that needs it gets a copy.

Operators that read one another without a node between them leave an empty piece, which is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import onnx_ir as ir
import onnxruntime
import onnxscript.optimizer
from numpy.typing import NDArray

from bundle.stages import GraphStage, OperatorStage, Stage, Stages, write_stages
from training.graph import opaque
from training.graph.expansion import expand
from training.graph.upstream_noise import silenced

# Inputs that change from call to call; the others are parameters.
_ARRAYS: Final[Mapping[str, int]] = {opaque.EVOLVED_INTEREST: 3, opaque.TARGET_INTEREST: 3, opaque.GRU_STATES: 2}


@dataclass
class _Piece:
    nodes: list[ir.Node] = field(default_factory=list)
    operators: list[ir.Node] = field(default_factory=list)


def split(model: ir.Model, folder: Path) -> Stages | None:
    """Write the pieces of a graph, the operators' parameters and what runs in which order into a folder.

    Args:
        model: as ``export_program`` made it, with its opaque nodes; optimised in place.
        folder: for ``stage<n>.onnx``, ``operators.npz`` and ``stages.json``.

    Returns:
        What was written; None where the graph has no operator, or one whose parameters are not constant: then nothing
        was written.
    """
    with silenced():
        onnxscript.optimizer.optimize(model)
    constant = _constants(model.graph)
    operators = [node for node in model.graph if _is_operator(node)]
    if not operators or not all(_fits(node, constant) for node in operators):
        return None
    for node in operators:
        node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)  # the inputs of a piece need one
    pieces = _pieces(model.graph, constant)
    outputs = set(model.graph.outputs)
    stages: list[Stage] = []
    parameters: dict[int, list[NDArray[np.float32]]] = {}
    made: set[ir.Value] = set(model.graph.inputs)
    for number, piece in enumerate(pieces):
        later = outputs | {
            value for after in pieces[number + 1 :] for node in after.nodes + after.operators for value in _read(node)
        }
        wanted = later | {value for node in piece.operators for value in _read(node)}
        if piece.nodes:
            stages.append(_write_piece(model, piece, made, wanted, folder / f"stage{number}.onnx"))
            made |= {value for node in piece.nodes for value in node.outputs}
        for node in piece.operators:
            parameters[len(stages)] = _parameters(model, node)
            stages.append(_operator(node, len(parameters[len(stages)])))
            made |= set(node.outputs)
    known = Stages(
        inputs=tuple(_name(value) for value in model.graph.inputs),
        outputs=tuple(_name(value) for value in model.graph.outputs),
        stages=tuple(stages),
    )
    write_stages(folder, known, parameters)
    return known


def _is_operator(node: ir.Node) -> bool:
    return node.domain == opaque.DOMAIN and node.op_type in _ARRAYS


def _fits(node: ir.Node, constant: set[ir.Value]) -> bool:
    return all(value in constant for value in node.inputs[_ARRAYS[node.op_type] :])


def _read(node: ir.Node) -> list[ir.Value]:
    """All values that a node reads, those inside its bodies too."""
    found = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        for body in _bodies(attribute):
            inside = {output for inner in body for output in inner.outputs} | set(body.inputs)
            found += [value for inner in body for value in _read(inner) if value not in inside]
            found += [value for value in body.outputs if value not in inside]
    return found


def _bodies(attribute: ir.Attr) -> Iterable[ir.Graph]:
    if attribute.type == ir.AttributeType.GRAPH:
        return [attribute.as_graph()]
    return attribute.as_graphs() if attribute.type == ir.AttributeType.GRAPHS else []


def _constants(graph: ir.Graph) -> set[ir.Value]:
    """Initialisers, and what comes from them alone."""
    constant = set(graph.initializers.values())
    for node in graph:
        if not _is_operator(node) and all(value in constant for value in _read(node)):
            constant |= set(node.outputs)
    return constant


def _pieces(graph: ir.Graph, constant: set[ir.Value]) -> list[_Piece]:
    level: dict[ir.Value, int] = {}
    pieces: dict[int, _Piece] = {}
    for node in graph:
        if all(value in constant for value in node.outputs):
            continue
        own = max((level.get(value, 0) for value in _read(node)), default=0)
        piece = pieces.setdefault(own, _Piece())
        (piece.operators if _is_operator(node) else piece.nodes).append(node)
        for value in node.outputs:
            level[value] = own + 1 if _is_operator(node) else own
    return [pieces[own] for own in sorted(pieces)]


def _operator(node: ir.Node, parameters: int) -> OperatorStage:
    said = {name: attribute.value for name, attribute in node.attributes.items()}
    count = _ARRAYS[node.op_type]
    return OperatorStage.model_validate(
        {
            "operator": node.op_type,
            "inputs": [_name(value) for value in node.inputs[:count]],
            "output": _name(node.outputs[0]),
            "parameters": parameters,
            **said,
        }
    )


def _write_piece(model: ir.Model, piece: _Piece, made: set[ir.Value], wanted: set[ir.Value], path: Path) -> GraphStage:
    """Write the nodes of a piece, with what makes the constants that they need."""
    read = {value: None for node in piece.nodes for value in _read(node)}
    outputs = [value for node in piece.nodes for value in node.outputs if value in wanted]
    part = _part(model, [value for value in read if value in made], outputs)
    with silenced():
        expand(part)
        onnxscript.optimizer.optimize(part)
    ir.save(part, path)
    return GraphStage(
        graph=path.name,
        inputs=tuple(_name(value) for value in part.graph.inputs),
        outputs=tuple(_name(value) for value in outputs),
    )


def _part(model: ir.Model, inputs: Sequence[ir.Value], outputs: Sequence[ir.Value]) -> ir.Model:
    return ir.Model(ir.convenience.extract(model.graph, inputs, outputs), ir_version=model.ir_version)


def _parameters(model: ir.Model, node: ir.Node) -> list[NDArray[np.float32]]:
    """Values of an operator's parameters: weights, or what the graph would compute from weights alone."""
    values = [value for value in node.inputs[_ARRAYS[node.op_type] :] if value is not None]
    computed = list({value: None for value in values if value.const_value is None})
    found = {value: value.const_value.numpy() for value in values if value.const_value is not None}
    if computed:
        content = ir.to_proto(_part(model, [], computed)).SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        found |= dict(zip(computed, session.run(None, {}), strict=True))
    return [np.asarray(found[value], dtype=np.float32) for value in values]


def _name(value: ir.Value | None) -> str:
    if value is None or not value.name:
        raise RuntimeError("a value between two stages of the graph has no name")
    return value.name

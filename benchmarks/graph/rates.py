"""How fast the runtime multiplies matrices, beside how much multiplying a graph needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from benchmarks.serving.speed_config import ATTENTION, CONTEXT, TOP, WIDTH


def multiply_adds(candidates: int, steps: int) -> int:
    """Of the history-repeated graph: products of matrices only."""
    h = 2 * WIDTH
    attention = 4 * h * ATTENTION[0] + ATTENTION[0] * ATTENTION[1] + ATTENTION[1]
    step = attention + 4 * h * 3 * h  # two GRUs, each an input and a recurrent half
    top = (2 * h + len(CONTEXT)) * TOP[0] + TOP[0] * TOP[1] + TOP[1]
    return candidates * (steps * step + top)


def open_graph(model: Path | bytes) -> onnxruntime.InferenceSession:
    """A session on one core with every optimisation."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options)


def plain_product(size: int) -> tuple[Callable[[], Any], int]:
    """A square product of matrices in the same runtime, and its multiply-adds."""
    left = onnx.helper.make_tensor_value_info("left", onnx.TensorProto.FLOAT, (size, size))
    right = onnx.helper.make_tensor_value_info("right", onnx.TensorProto.FLOAT, (size, size))
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, (size, size))
    node = onnx.helper.make_node("MatMul", ["left", "right"], ["out"])
    made = onnx.helper.make_graph([node], "product", [left, right], [out])
    opsets = [onnx.helper.make_opsetid("", 18)]
    session = open_graph(onnx.helper.make_model(made, opset_imports=opsets, ir_version=9).SerializeToString())
    feed = {name: np.random.default_rng(0).normal(size=(size, size)).astype(np.float32) for name in ("left", "right")}
    return (lambda: session.run(None, feed)), size**3

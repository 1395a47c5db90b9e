"""The comparison's other side: the same weights with the history repeated for every candidate.

Every candidate is a row of its own, as libraries for click prediction export DIEN: [q, k, q - k, q * k] is built for
each of its steps, and both GRUs and the attention run on rows x steps. Nothing here is slowed down: the extractor is
the runtime's own GRU, and the attention GRU a ``Scan`` over a 2-D state with one product a step.
"""

# mypy: ignore-errors
# onnxscript annotates its functions with the types of eager values; these are only ever turned into graphs.

from pathlib import Path

import torch
from onnxscript import FLOAT, graph, script
from onnxscript import opset18 as op
from onnxscript.values import Opset
from torch import Tensor, nn

from models.ctr import DIENModel
from models.ctr.fields import Inputs
from models.inputs import INPUT_NAMES
from models.layers.masks import masked_softmax
from training.graph.expansion import OPSET
from training.graph.onnx import publish
from training.graph.opaque import translations
from training.graph.upstream_noise import silenced

_DOMAIN = Opset("tiled", 1)


@torch.library.custom_op("tiled::augru", mutates_args=())
def augru(inputs: Tensor, scores: Tensor, weight_hh: Tensor, bias_hh: Tensor) -> Tensor:
    """Last state (B, H) of input halves (T, B, 3H) and scores (T, B, 1), step by step."""
    width = weight_hh.size(1)
    h = torch.zeros_like(inputs[0, :, :width])
    for of_x, score in zip(inputs, scores, strict=True):
        of_h = h @ weight_hh.t() + bias_hh
        u, r = torch.sigmoid(of_x[:, : 2 * width] + of_h[:, : 2 * width]).chunk(2, 1)
        n = torch.tanh(of_x[:, 2 * width :] + r * of_h[:, 2 * width :])
        h = h + score * u * (n - h)
    return h


@augru.register_fake
def _(inputs: Tensor, scores: Tensor, weight_hh: Tensor, bias_hh: Tensor) -> Tensor:
    return inputs.new_empty(inputs.size(1), weight_hh.size(1))


@script(_DOMAIN)
def augru_scan(inputs: FLOAT[...], scores: FLOAT[...], weight_hh: FLOAT[...], bias_hh: FLOAT[...]) -> FLOAT[...]:
    """The same as a ``Scan``."""
    transposed = op.Transpose(weight_hh, perm=[1, 0])
    for_u, for_r, for_n = op.Split(inputs, axis=2, num_outputs=3)
    gates = op.Concat(for_u, for_r, axis=2)
    start = op.Squeeze(op.Slice(for_n * 0.0, op.Constant(value_ints=[0]), op.Constant(value_ints=[1])), [0])

    @graph()
    def step(h, gate, from_n, score):
        from_u, from_r, from_h = op.Split(op.Gemm(h, transposed, bias_hh), axis=1, num_outputs=3)
        gate_u, gate_r = op.Split(gate, axis=1, num_outputs=2)
        u = op.Sigmoid(gate_u + from_u)
        r = op.Sigmoid(gate_r + from_r)
        return h + u * score * (op.Tanh(from_n + r * from_h) - h)

    return op.Scan(start, gates, for_n, scores, body=step, num_scan_inputs=3)


class TiledDIEN(nn.Module):
    """A ``DIENModel`` with one group and one candidate a row, everything computed from that row alone.

    Takes the seven tensors with U = rows and C = 1; returns logits (rows, 1, K).
    """

    def __init__(self, model: DIENModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Tensor) -> Tensor:
        """Logits."""
        given = Inputs(*inputs)
        frame, group = self.model.frame, self.model.groups[0]
        vectors = frame.read(given)
        query, keys = group.fields(vectors.candidates, vectors.behaviours)
        real = group.fields.mask(given.behaviour_mask)
        states = group.interest.extract(keys, real)
        interest = self._evolve(group.interest, query.squeeze(1), states, real)
        return frame(given, vectors, [interest.unsqueeze(1)])

    def _evolve(self, interest: nn.Module, query: Tensor, states: Tensor, real: Tensor) -> Tensor:
        attention, cell = interest.attention, interest.interest_evolution.cell
        tiled = query.unsqueeze(1).expand(-1, real.size(1), -1)
        pairs = torch.cat([tiled, states, tiled - states, tiled * states], -1)
        raw = attention.fc(attention.mlp(pairs.flatten(0, 1))).view(real.size(0), real.size(1))
        scores = masked_softmax(raw * attention.input_size**-0.5, real)
        inputs = nn.functional.linear(states, cell.weight_ih, cell.bias_ih)
        return augru(inputs.transpose(0, 1), scores.t().unsqueeze(-1), cell.weight_hh, cell.bias_hh)


def export_tiled(model: DIENModel, path: Path, example: tuple[Tensor, ...]) -> None:
    """Write the history-repeated graph for any number of rows, with the history's length of the example."""
    rows = torch.export.Dim("rows")
    with silenced(), torch.no_grad():
        program = torch.onnx.export(
            TiledDIEN(model).eval(),
            example,
            dynamo=True,
            input_names=list(INPUT_NAMES),
            output_names=["logits"],
            dynamic_shapes=(tuple({0: rows} for _ in INPUT_NAMES),),
            custom_translation_table={**translations(), torch.ops.tiled.augru.default: augru_scan},
            opset_version=OPSET,
            optimize=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    publish(program, path)

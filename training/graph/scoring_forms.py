"""A scoring network over all pairs of candidates and steps, as many steps at a time as fit a processor's cache.

The first layer of [q, k, q - k, q * k] is linear in q once k is known: for any steps it is one product of all queries
with a matrix that depends on the history alone. With few candidates that matrix would be larger than their pairs, and
the pairs are multiplied; the graph chooses when it runs. The layers of a chunk of steps are taken to their end before
the next chunk begins. All at once, 500 candidates x 50 steps x 80 units would pass through main memory between any two
nodes.

Constant factors of a layer's output are moved into the next kernel, so that

    prelu  max(x, a x) for a <= 1; min(x, a x), which a > 1 needs, is -max(-x, a (-x)): the sign moves into the kernels
    dice   x (a + (1 - a) sig(g x + s)) = (1 - a) / g * z (sig(z + s) + a / (1 - a)) with z = g x from the kernel

are two and four nodes in place of four and six.

Letters: U users, C candidates, T steps, S steps of a chunk, D width, J units of a layer, R = U * C * S rows.
"""

# mypy: ignore-errors
# The builder of onnxscript makes an operator of every attribute it is asked for, which no type can say.

from dataclasses import dataclass
from typing import Any, Final

import onnx_ir as ir

FLOAT = ir.DataType.FLOAT
# Of a chunk's widest layer: 320 kB, so that a layer and the next one stay in a level-2 cache.
CHUNK_FLOATS: Final = 80_000
# Nearest that a slope of dice comes to 1, and the smallest scale of its gate: both are divided by.
LEAST_REST, LEAST_SCALE = 1e-7, 1e-12


@dataclass(frozen=True, slots=True)
class Layer:
    """One hidden layer: its affine map, and what its activation needs.

    Attributes:
        kernel: (in, J), scaled by what was taken out of the layer before.
        bias: (J,).
        units: J.
        columns: (J,) each, for the activation.
        taken_out: (J,), the factor of the output that is left to the next kernel, or None.
    """

    kernel: Any
    bias: Any
    units: int
    columns: tuple[Any, ...]
    taken_out: Any


def network_scores(op, queries, steps, scoring, activation: str):
    """Scores (T, U, C) without the last bias: queries (U, C, D), steps (T, U, D), scoring without that bias."""
    layers, taken_out = [], None
    for place in range(0, len(scoring) - 1, 3):
        layers.append(_layer(op, activation, scoring[place : place + 3], taken_out))
        taken_out = layers[-1].taken_out
    last = _scaled(op, scoring[-1], taken_out)
    first, *others = layers
    pairs = Pairs.of(op, queries, first.kernel)
    key_terms = op.Add(op.MatMul(steps, pairs.of_key), first.bias)
    cut = _cut(op, queries, steps, max(layer.units for layer in layers))
    activations = [Activation.of(op, activation, layer, cut) for layer in layers]

    def chunk(inner, keys, terms):
        x = activations[0].rows(inner, pairs.affine(inner, keys, terms))
        for layer, activated in zip(others, activations[1:], strict=True):
            x = activated.rows(inner, inner.Gemm(x, layer.kernel, layer.bias))
        return inner.MatMul(x, last)

    body = op.builder.subgraph(
        chunk, [ir.val("keys", FLOAT), ir.val("terms", FLOAT)], [ir.val("scores", FLOAT)], name="chunk"
    )
    scores = op.Scan(cut.chunks(op, steps), cut.chunks(op, key_terms), body=body, num_scan_inputs=2)  # (N, R, 1)
    rows = op.Shape(queries, start=0, end=2)
    by_chunk = op.Reshape(scores, op.Concat([-1], rows, cut.length, axis=0))
    flat = op.Reshape(op.Transpose(by_chunk, perm=[0, 3, 1, 2]), op.Concat([-1], rows, axis=0))
    return op.Slice(flat, [0], cut.steps, [0])


@dataclass(frozen=True, slots=True)
class Cut:
    """How time is cut: T, S, and the steps that the last chunk lacks, each of shape (1,)."""

    steps: Any
    length: Any
    missing: Any

    def chunks(self, op, by_step):
        """(N, U, S, width) of (T, U, width), the end filled with zeros."""
        nothing = op.Constant(value_ints=[0, 0])
        filled = op.Pad(by_step, op.Concat([0], nothing, self.missing, nothing, axis=0))
        cut = op.Reshape(filled, op.Concat([-1], self.length, op.Shape(by_step, start=1), axis=0))
        return op.Transpose(cut, perm=[0, 2, 1, 3])


def _cut(op, queries, steps, widest: int) -> Cut:
    """As few chunks as the cache allows, of one length."""
    time = op.Shape(steps, start=0, end=1)
    users, candidates = op.Shape(queries, start=0, end=1), op.Shape(queries, start=1, end=2)
    rows = max(CHUNK_FLOATS // widest, 1)
    chunks = op.Max(_divided_up(op, op.Mul(op.Mul(users, candidates), time), [rows]), [1])
    length = op.Max(_divided_up(op, time, chunks), [1])
    return Cut(time, length, op.Mod(op.Neg(time), length))


def _divided_up(op, dividend, divisor):
    return op.Div(op.Sub(op.Add(dividend, divisor), [1]), divisor)


@dataclass(frozen=True, slots=True)
class Pairs:
    """The first affine map of pairs, in two orders.

    Attributes:
        queries: (U, C, D).
        queried: the same with a column of ones, which meets the keys' terms: that spares an addition over all pairs.
        few: whether pairs are fewer than the entries of a history's matrix.
        of_query: what multiplies the queries, (D, J).
        of_key: what multiplies the keys, (D, J).
        of_pair: what multiplies their products, (D, J).
    """

    queries: Any
    queried: Any
    few: Any
    of_query: Any
    of_key: Any
    of_pair: Any

    @staticmethod
    def of(op, queries, kernel) -> "Pairs":
        """For queries (U, C, D) and the kernel (4 D, J)."""
        width, units = int(kernel.shape[0]) // 4, int(kernel.shape[1])
        of_query, of_key, of_difference, of_product = (
            op.Slice(kernel, [block * width], [(block + 1) * width], [0]) for block in range(4)
        )
        ones = op.Expand(op.Constant(value_float=1.0), op.Concat(op.Shape(queries, start=0, end=2), [1], axis=0))
        few = op.LessOrEqual(op.Squeeze(op.Shape(queries, start=1, end=2), [0]), op.Constant(value_int=units // 2))
        of_query, of_key = op.Add(of_query, of_difference), op.Sub(of_key, of_difference)
        return Pairs(queries, op.Concat(queries, ones, axis=2), few, of_query, of_key, of_product)

    def affine(self, op, keys, terms):
        """(U*C, S*J) of keys (U, S, D) and their terms (U, S, J)."""
        width, units = (int(size) for size in self.of_pair.shape)

        def by_history(inner):
            by_feature = inner.Unsqueeze(inner.Transpose(keys, perm=[0, 2, 1]), [3])
            of_pair, of_query = inner.Unsqueeze(self.of_pair, [1]), inner.Unsqueeze(self.of_query, [1])
            matrix = inner.Add(inner.Mul(by_feature, of_pair), of_query)  # (U, D, S, J)
            flat = inner.Reshape(inner.Concat(matrix, inner.Unsqueeze(terms, [1]), axis=1), [0, width + 1, -1])
            return inner.MatMul(self.queried, flat)

        def by_pair(inner):
            products = inner.Mul(inner.Unsqueeze(self.queries, [2]), inner.Unsqueeze(keys, [1]))
            from_queries = inner.Unsqueeze(inner.MatMul(self.queries, self.of_query), [2])
            both = inner.Reshape(inner.Add(from_queries, inner.Unsqueeze(terms, [1])), [-1, units])
            return inner.Gemm(inner.Reshape(products, [-1, width]), self.of_pair, both)

        return op.If(
            self.few,
            then_branch=op.builder.subgraph(by_pair, [], [ir.val("by_pair", FLOAT)], name="by_pair"),
            else_branch=op.builder.subgraph(by_history, [], [ir.val("by_history", FLOAT)], name="by_history"),
        )


def _layer(op, activation: str, tensors, taken_out) -> Layer:
    """A layer of kernel, bias and the activation's parameters (3, J): slope, gate scale, gate shift."""
    kernel, bias, shape = tensors
    units = int(bias.shape[0])
    kernel = _scaled(op, kernel, taken_out)
    slope, scale, shift = (op.Squeeze(op.Slice(shape, [row], [row + 1], [0]), [0]) for row in range(3))
    one = op.Constant(value_float=1.0)
    if activation == "prelu":
        sign = op.Where(op.Greater(slope, one), op.Constant(value_float=-1.0), one)
        return Layer(op.Mul(kernel, sign), op.Mul(bias, sign), units, (slope,), sign)
    if activation == "dice":
        rest = _away_from_zero(op, op.Sub(one, slope), LEAST_REST)
        scale = _away_from_zero(op, scale, LEAST_SCALE)
        columns = (shift, op.Div(slope, rest))
        return Layer(op.Mul(kernel, scale), op.Mul(bias, scale), units, columns, op.Div(rest, scale))
    return Layer(kernel, bias, units, (), None)


def _scaled(op, kernel, factor):
    return kernel if factor is None else op.Mul(kernel, op.Unsqueeze(factor, [1]))


def _away_from_zero(op, tensor, least: float):
    small = op.Less(op.Abs(tensor), op.Constant(value_float=least))
    return op.Where(small, op.Constant(value_float=least), tensor)


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation over the rows of a chunk.

    Attributes:
        name: of the activation.
        units: J.
        columns: its parameters, (S*J,) each: a runtime broadcasts one long row much faster than S short ones.
        wide: the shape (-1, S*J).
    """

    name: str
    units: int
    columns: tuple[Any, ...]
    wide: Any

    @staticmethod
    def of(op, name: str, layer: Layer, cut: Cut) -> "Activation":
        """For a layer, with chunks cut like this."""
        columns = tuple(op.Tile(column, cut.length) for column in layer.columns)
        return Activation(name, layer.units, columns, op.Concat([-1], op.Mul(cut.length, [layer.units]), axis=0))

    def rows(self, op, x):
        """Activated rows (R, J) of as many numbers in any shape."""
        if self.columns:
            x = op.Reshape(x, self.wide)
        if self.name == "sigmoid":
            x = op.Sigmoid(x)
        elif self.name == "relu":
            x = op.Relu(x)
        elif self.name == "prelu":
            x = op.Max(x, op.Mul(x, self.columns[0]))
        elif self.name == "dice":
            shift, ratio = self.columns
            x = op.Mul(x, op.Add(op.Sigmoid(op.Add(x, shift)), ratio))
        return op.Reshape(x, [-1, self.units])

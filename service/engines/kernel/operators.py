"""The compiled operators as functions of arrays: parameters are packed once, arrays are checked at every call.

Whatever reaches the compiled code has been checked here: it believes every size and every address.

Letters: U users, C candidates, T steps, D width of a step, Q of a query, H hidden width, J units of a layer, G blocks
of gates (3: u, r, n; 2: r, n).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.engines.kernel.library import (
    LANES,
    MOST_LAYERS,
    ExtractorArguments,
    InterestArguments,
    LayerArguments,
    Library,
    ShapeArguments,
)

Floats = NDArray[np.float32]
ACTIVATIONS: Final = {"linear": 0, "sigmoid": 1, "relu": 2, "prelu": 3, "dice": 4}
BILINEAR: Final = "bilinear"
_MOST = 2**31 - 1


_BRIEF: Final = 128  # steps of a GRU that take some twenty microseconds, one request's history among them


class OperatorError(ValueError):
    """Parameters or arrays do not fit."""


class _Scratch(threading.local):
    """Memory that a thread's calls work in; it grows to the largest call and is given back with the thread."""

    def __init__(self) -> None:
        self.buffer = np.empty(0, dtype=np.float32)
        self._start = 0

    def address(self, floats: int) -> int:
        if self.buffer.size < floats + LANES:
            self.buffer = np.empty(floats + LANES, dtype=np.float32)
            start = _address(self.buffer)
            self._start = start + -start % 64
        return self._start


_SCRATCH: Final = _Scratch()


class InterestOperator:
    """Target attention and its readout: the weighted sum of the steps, or the state of an AUGRU or AGRU.

    Padded steps take no part, whatever they hold; a user without a real step gets zeros.

    Args:
        library: The compiled code.
        scoring: Kernel (in, J), bias (J,) and shape (3, J) of each hidden layer, then the last kernel (J, 1) and bias
            (1,). The first kernel is (4 D, J), for [q, k, q - k, q * k]. With activation ``bilinear``: the weight
            (D, Q) alone.
        activation: Of all hidden layers; the rows of ``shape`` are its slope, gate scale and gate shift.
        softmax: Scores are normalised over the real steps.
        scale: Factor of the raw scores.
        gates: Weight (G*H, D), bias (G*H,), recurrent weight (G*H, H) and bias of n (H,); none for the weighted sum.

    Raises:
        OperatorError: The parameters do not fit one another.
    """

    def __init__(
        self,
        library: Library,
        scoring: Sequence[Floats],
        activation: str,
        *,
        softmax: bool,
        scale: float,
        gates: Sequence[Floats] = (),
    ) -> None:
        self._library = library
        self._kept: list[NDArray[Any]] = []
        arguments = InterestArguments(scale=scale, softmax=softmax)
        if activation == BILINEAR:
            self._bilinear(arguments, scoring)
        elif activation in ACTIVATIONS:
            arguments.activation = ACTIVATIONS[activation]
            self._layers(arguments, scoring)
        else:
            raise OperatorError(f"activation must be one of {', '.join(ACTIVATIONS)} or {BILINEAR}, got {activation!r}")
        if gates:
            self._gates(arguments, gates)
        self._query_width, self._width = int(arguments.query_width), int(arguments.width)
        self._width_out = int(arguments.hidden if gates else arguments.width)
        self._arguments = arguments
        self._reference = ctypes.addressof(arguments)
        self._sizes = _sizes(library.handle.ctrlift_interest_scratch, library.number, self._reference)

    def __call__(self, query: Floats, keys: Floats, mask: NDArray[np.bool_]) -> Floats:
        """The interests (U, C, H), or (U, C, D) for the weighted sum: query (U, C, Q), keys (U, T, D), mask (U, T).

        Raises:
            OperatorError: An array does not have its type or shape.
        """
        users, steps = mask.shape if mask.ndim == 2 else (-1, -1)
        candidates = query.shape[1] if query.ndim == 3 else -1
        query = _checked("query", query, np.float32, (users, candidates, self._query_width))
        keys = _checked("keys", keys, np.float32, (users, steps, self._width))
        mask = _checked("mask", mask, np.bool_, (users, steps))
        out = np.empty((users, candidates, self._width_out), dtype=np.float32)
        if out.size == 0:
            return out
        number, handle = self._library.number, self._library.handle
        shape, floats = self._sizes(users, candidates, steps)
        where, scratch = ctypes.addressof(shape), _SCRATCH.address(floats)
        arrays = (_address(query), _address(keys), _address(mask), _address(out))
        handle.ctrlift_interest(number, self._reference, where, *arrays, scratch)
        return out

    def _bilinear(self, arguments: InterestArguments, scoring: Sequence[Floats]) -> None:
        if len(scoring) != 1 or scoring[0].ndim != 2:
            raise OperatorError("bilinear scoring must be one weight (D, Q)")
        arguments.width, arguments.query_width = scoring[0].shape
        arguments.from_query = self._keep(_columns(scoring[0].T * np.float32(arguments.scale)))

    def _layers(self, arguments: InterestArguments, scoring: Sequence[Floats]) -> None:
        layers, (last, last_bias) = _layers_of(scoring)
        if len(scoring) == 2:
            arguments.activation = ACTIVATIONS["linear"]
        if len(layers) > MOST_LAYERS:
            raise OperatorError(f"the scoring network must have at most {MOST_LAYERS} hidden layers, got {len(layers)}")
        kernel = layers[0][0]
        if kernel.ndim != 2 or kernel.shape[0] % 4 or kernel.shape[0] == 0:
            raise OperatorError(f"the first kernel must be (4 D, J), got {kernel.shape}")
        of_query, of_key, of_difference, of_product = np.split(kernel, 4)
        arguments.width = arguments.query_width = width = kernel.shape[0] // 4
        arguments.from_query = self._keep(_columns(of_query + of_difference))
        arguments.from_key = self._keep(_columns(of_key - of_difference))
        arguments.layers = len(layers)
        for place, (weights, bias, shape) in enumerate(layers):
            arguments.layer[place] = self._layer(of_product if place == 0 else weights, bias, shape, width)
            width = weights.shape[1]
        if last.size != width or last_bias.size != 1:
            raise OperatorError(f"the last kernel must be ({width}, 1) with a bias (1,), got {last.shape}")
        arguments.last = self._keep(_columns(last.reshape(1, -1)))
        arguments.last_bias = float(last_bias.ravel()[0])

    def _layer(self, weights: Floats, bias: Floats, shape: Floats, inputs: int) -> LayerArguments:
        units = weights.shape[1] if weights.ndim == 2 else -1
        if weights.shape != (inputs, units) or bias.shape != (units,) or shape.shape != (3, units) or units < 1:
            raise OperatorError(
                f"a layer must have kernel ({inputs}, J), bias (J,) and shape (3, J), "
                f"got {weights.shape}, {bias.shape} and {shape.shape}"
            )
        rows = [self._keep(_columns(row.reshape(1, -1))) for row in (bias, *shape)]
        packed = self._keep(_columns(weights)), *rows, self._keep(_tiles(weights))
        return LayerArguments(inputs, units, padded(units), *packed)

    def _gates(self, arguments: InterestArguments, gates: Sequence[Floats]) -> None:
        if len(gates) != 4 or gates[2].ndim != 2:
            raise OperatorError("gates must be weight (G*H, D), bias (G*H,), recurrent weight (G*H, H), bias of n (H,)")
        weight, bias, weight_hh, bias_n = gates
        units, hidden = weight_hh.shape
        width = int(arguments.width)
        fitting = weight.shape == (units, width) and bias.shape == (units,) and bias_n.shape == (hidden,)
        if not fitting or hidden < 1 or units not in (2 * hidden, 3 * hidden):
            raise OperatorError(
                f"gates must be (G*H, {width}), (G*H,), (G*H, H) and (H,) with G 2 or 3, "
                f"got {weight.shape}, {bias.shape}, {weight_hh.shape} and {bias_n.shape}"
            )
        arguments.blocks, arguments.hidden, arguments.gates_stride = units // hidden, hidden, padded(units)
        arguments.gates_weight = self._keep(_columns(weight.T))
        arguments.gates_bias = self._keep(_columns(bias.reshape(1, -1)))
        arguments.hidden_weight = self._keep(_columns(weight_hh.T))
        arguments.hidden_tiles = self._keep(_tiles(weight_hh.T))
        arguments.bias_n = self._keep(_columns(bias_n.reshape(1, -1)))

    def _keep(self, array: Floats) -> int:
        self._kept.append(array)
        return _address(array)


class ExtractorOperator:
    """A GRU over a masked sequence, torch's parameters and order of gates (r, z, n); padding carries the state.

    Args:
        library: The compiled code.
        parameters: weight_ih (3H, D), weight_hh (3H, H), bias_ih (3H,), bias_hh (3H,).

    Raises:
        OperatorError: The parameters do not fit one another.
    """

    def __init__(self, library: Library, parameters: Sequence[Floats]) -> None:
        if len(parameters) != 4 or any(array.ndim != 2 for array in parameters[:2]):
            raise OperatorError("a GRU must have weight_ih (3H, D), weight_hh (3H, H), bias_ih (3H,), bias_hh (3H,)")
        weight_ih, weight_hh, bias_ih, bias_hh = parameters
        hidden, self._width = weight_hh.shape[1], weight_ih.shape[1]
        rows = (3 * hidden,)
        if not (weight_ih.shape[:1] == weight_hh.shape[:1] == bias_ih.shape == bias_hh.shape == rows) or hidden < 1:
            raise OperatorError(f"the parameters of a GRU must have {rows[0]} rows, got {weight_ih.shape}")
        # The bias of n stays inside the reset product, the others join the input half.
        bias = bias_ih + np.concatenate([bias_hh[: 2 * hidden], np.zeros(hidden, np.float32)])
        self._kept = [
            _blocks(weight_ih.T, hidden),
            _blocks(bias.reshape(1, -1), hidden),
            _blocks(weight_hh.T, hidden),
            _columns(bias_hh[2 * hidden :].reshape(1, -1)),
        ]
        self._library, self._hidden = library, hidden
        self._arguments = ExtractorArguments(self._width, hidden, padded(hidden), *map(_address, self._kept))
        self._reference = ctypes.addressof(self._arguments)
        self._sizes = _sizes(library.handle.ctrlift_extractor_scratch, library.number, self._reference)

    def __call__(self, sequence: Floats, mask: NDArray[np.bool_]) -> Floats:
        """The states (U, T, H) of sequence (U, T, D) and mask (U, T).

        Raises:
            OperatorError: An array does not have its type or shape.
        """
        users, steps = mask.shape if mask.ndim == 2 else (-1, -1)
        sequence = _checked("sequence", sequence, np.float32, (users, steps, self._width))
        mask = _checked("mask", mask, np.bool_, (users, steps))
        out = np.empty((users, steps, self._hidden), dtype=np.float32)
        if out.size == 0:
            return out
        number, handle, brief = self._library.number, self._library.handle, self._library.brief
        shape, floats = self._sizes(users, 1, steps)
        where, scratch = ctypes.addressof(shape), _SCRATCH.address(floats)
        arrays = (_address(sequence), _address(mask), _address(out))
        run = brief.ctrlift_extractor if users * steps <= _BRIEF else handle.ctrlift_extractor
        run(number, self._reference, where, *arrays, scratch)
        return out


def padded(count: int) -> int:
    """The count rounded up to whole vectors of the widest instruction set."""
    return -(-count // LANES) * LANES


def _layers_of(scoring: Sequence[Floats]) -> tuple[list[Sequence[Floats]], Sequence[Floats]]:
    """The hidden layers and the last one; where it is the only one, it becomes a hidden layer and 1 follows it."""
    if len(scoring) < 2 or len(scoring) % 3 != 2:
        raise OperatorError(f"scoring must hold three arrays a hidden layer and two more, got {len(scoring)}")
    if len(scoring) == 2:
        kernel, bias = scoring
        return [(kernel, np.zeros(1, np.float32), np.zeros((3, 1), np.float32))], (np.ones((1, 1), np.float32), bias)
    return [scoring[i : i + 3] for i in range(0, len(scoring) - 2, 3)], scoring[-2:]


def _columns(array: Floats) -> Floats:
    """Two axes, the last filled up with zeros to whole vectors; on a boundary of 64 bytes."""
    rows, columns = array.shape
    buffer = np.zeros(rows * padded(columns) + LANES, dtype=np.float32)
    start = -_address(buffer) % 64 // 4
    made = buffer[start : start + rows * padded(columns)].reshape(rows, padded(columns))
    made[:, :columns] = array
    return made


def _tiles(weights: Floats) -> Floats:
    """A kernel (inputs, J) as ``tiles.h`` multiplies it: the tiles of 16 units, each of 16 rows of 32 bfloat16.

    A weight is the sum of two bfloat16: the leading one meets both halves of an input, what it leaves only the leading.
    """
    even = np.pad(weights, ((0, weights.shape[0] % 2), (0, 0)))
    leading = _bfloat16(even)
    left = _bfloat16(even - leading)
    whole = len(even) // 32 * 32
    blocks = [half[first : first + 32] for first in range(0, whole, 32) for half in (leading, left)]
    rows = np.concatenate([*blocks, leading[whole:], leading[whole:], left[whole:]])
    depth, units = -(-len(rows) // 32), padded(weights.shape[1])
    filled = np.zeros((depth * 32, units), np.float32)
    filled[: len(rows), : weights.shape[1]] = rows
    halves = (filled.view(np.uint32) >> 16).astype(np.uint16)
    ordered = halves.T.reshape(units // LANES, LANES, depth, 32).transpose(0, 2, 1, 3)
    return _columns(np.ascontiguousarray(ordered).reshape(1, -1).view(np.float32))


def _bfloat16(array: Floats) -> Floats:
    """The nearest values with eight bits, ties to the even one."""
    bits = array.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def _blocks(array: Floats, hidden: int) -> Floats:
    """Columns of three blocks, each filled up to whole vectors."""
    return _columns(np.concatenate([_columns(block) for block in np.split(array, array.shape[1] // hidden, 1)], 1))


def _sizes(
    scratch: Callable[..., int], number: int, model: int
) -> Callable[[int, int, int], tuple[ShapeArguments, int]]:
    """How many floats of scratch memory a call needs, kept for the shapes of the latest calls."""

    @lru_cache(maxsize=64)
    def sizes(users: int, candidates: int, steps: int) -> tuple[ShapeArguments, int]:
        shape = ShapeArguments(users, candidates, steps)
        return shape, scratch(number, model, ctypes.addressof(shape))

    return sizes


def _checked(name: str, array: NDArray[Any], dtype: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    if array.shape != shape or array.dtype != dtype or max(array.shape) > _MOST:
        raise OperatorError(f"{name} must be {np.dtype(dtype)} of shape {shape}, got {array.dtype} {array.shape}")
    return np.ascontiguousarray(array)


def _address(array: NDArray[Any]) -> int:
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(array.data))  # in a third of the time of the other way
    except (TypeError, ValueError):  # of an array that is read-only or empty
        return int(array.__array_interface__["data"][0])

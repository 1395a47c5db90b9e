"""Slow references in NumPy: one row, one step, one term at a time."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def sigmoid(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))


def attention_gru(cell: dict[str, Array], x: Array, scores: Array, mask: Array, start: Array, kind: str) -> Array:
    """All states (B, T, H) of AGRU or AUGRU: x (B, T, D), scores and mask (B, T), start (B, H)."""
    width = start.shape[1]
    states = np.zeros((*scores.shape, width))
    for row in range(x.shape[0]):
        h = start[row].copy()
        for t in range(x.shape[1]):
            if mask[row, t]:
                of_x = cell["weight_ih"] @ x[row, t] + cell["bias_ih"]
                of_h = cell["weight_hh"] @ h + cell["bias_hh"]
                blocks_x, blocks_h = of_x.reshape(-1, width), of_h.reshape(-1, width)
                reset = sigmoid(blocks_x[-2] + blocks_h[-2])
                proposed = np.tanh(blocks_x[-1] + reset * blocks_h[-1])
                share = scores[row, t] * (sigmoid(blocks_x[0] + blocks_h[0]) if kind == "AUGRU" else 1.0)
                h = (1.0 - share) * h + share * proposed
            states[row, t] = h
    return states


def pair_score(tower: list[tuple[Array, Array]], query: Array, key: Array) -> float:
    """A sigmoid network on [q, k, q - k, q * k]; the last layer is affine."""
    x = np.concatenate([query, key, query - key, query * key])
    for kernel, bias in tower[:-1]:
        x = sigmoid(x @ kernel + bias)
    kernel, bias = tower[-1]
    return float((x @ kernel + bias)[0])


def masked_softmax(scores: Array, mask: Array) -> Array:
    weights = np.zeros_like(scores)
    if mask.any():
        shifted = np.exp(scores[mask] - scores[mask].max())
        weights[mask] = shifted / shifted.sum()
    return weights

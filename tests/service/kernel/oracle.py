"""Attention and recurrence once more, step by step in float64: what the compiled operators are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
ACTIVATIONS = ("linear", "sigmoid", "relu", "prelu", "dice")


@dataclass(frozen=True)
class Case:
    """Sizes and options of one call."""

    users: int = 1
    candidates: int = 3
    steps: int = 5
    width: int = 4
    units: tuple[int, ...] = (6,)
    hidden: int = 3
    blocks: int = 3
    activation: str = "sigmoid"
    softmax: bool = True
    real: float = 0.7  # share of steps that are real
    seed: int = 0
    query_width: int = 5  # of a bilinear score

    @property
    def scale(self) -> float:
        return float(1.0 / np.sqrt(self.width))


@dataclass(frozen=True)
class Material:
    """Arrays and parameters of a case; what stands on padding is not a number."""

    query: Floats
    keys: Floats
    mask: NDArray[np.bool_]
    scoring: list[Floats] = field(default_factory=list)
    gates: list[Floats] = field(default_factory=list)


def material(case: Case) -> Material:
    rng = np.random.default_rng(case.seed)

    def normal(*shape: int, spread: float = 1.0) -> Floats:
        return rng.normal(0, spread, shape).astype(np.float32)

    d, h, g = case.width, case.hidden, case.blocks
    if case.activation == "bilinear":
        scoring = [normal(d, case.query_width, spread=d**-0.5)]
    else:
        scoring, inputs = [], 4 * d
        for units in case.units:
            scoring += [normal(inputs, units, spread=inputs**-0.5), normal(units, spread=0.3), normal(3, units)]
            inputs = units
        scoring += [normal(inputs, 1, spread=inputs**-0.5), normal(1)]
    gates = [normal(g * h, d, spread=d**-0.5), normal(g * h, spread=0.3), normal(g * h, h, spread=h**-0.5), normal(h)]
    mask = rng.random((case.users, case.steps)) < case.real
    keys = normal(case.users, case.steps, d)
    keys[~mask] = np.nan
    query = normal(case.users, case.candidates, case.query_width if case.activation == "bilinear" else d)
    return Material(query, keys, mask, scoring, gates if g else [])


def sigmoid(x: Doubles) -> Doubles:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))


def activate(x: Doubles, activation: str, shape: Doubles) -> Doubles:
    slope, scale, shift = shape
    if activation == "sigmoid":
        return sigmoid(x)
    if activation == "relu":
        return np.asarray(np.maximum(x, 0.0))
    if activation == "prelu":
        return np.asarray(np.where(x > 0, x, slope * x))
    if activation == "dice":
        gate = sigmoid(scale * x + shift)
        return np.asarray(gate * x + (1.0 - gate) * slope * x)
    return x


def raw_scores(case: Case, query: Doubles, keys: Doubles, scoring: Sequence[Doubles]) -> Doubles:
    """(C, S) of query (C, Q) and real keys (S, D): one pair after the other goes through the network."""
    if case.activation == "bilinear":
        return np.asarray(query @ scoring[0].T @ keys.T * case.scale)
    q, k = np.broadcast_arrays(query[:, None, :], keys[None])
    x = np.concatenate([q, k, q - k, q * k], axis=-1)
    for place in range(0, len(scoring) - 2, 3):
        x = activate(x @ scoring[place] + scoring[place + 1], case.activation, scoring[place + 2])
    return np.asarray((x @ scoring[-2])[..., 0] + scoring[-1][0]) * case.scale


def evolve(keys: Doubles, attention: Doubles, gates: Sequence[Doubles], blocks: int) -> Doubles:
    """(C, H) of real keys (S, D) and attention (C, S)."""
    weight, bias, weight_hh, bias_n = gates
    width = weight_hh.shape[1]
    state = np.zeros((len(attention), width))
    for t, key in enumerate(keys):
        brought, recurrent = np.split(weight @ key + bias, blocks), np.split(state @ weight_hh.T, blocks, axis=1)
        reset = sigmoid(brought[-2] + recurrent[-2])
        proposed = np.tanh(brought[-1] + reset * (recurrent[-1] + bias_n))
        share = attention[:, t, None]
        if blocks == 3:
            share = share * sigmoid(brought[0] + recurrent[0])
        state = (1.0 - share) * state + share * proposed
    return state


def interest(case: Case, given: Material) -> Doubles:
    """What the operator must return, one user after the other."""
    scoring = [array.astype(np.float64) for array in given.scoring]
    gates = [array.astype(np.float64) for array in given.gates]
    rows = []
    for query, keys, real in zip(
        given.query.astype(np.float64), given.keys.astype(np.float64), given.mask, strict=True
    ):
        steps = keys[real]
        if len(steps) == 0:
            rows.append(np.zeros((case.candidates, case.hidden if gates else case.width)))
            continue
        scores = raw_scores(case, query, steps, scoring)
        if case.softmax:
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
        rows.append(evolve(steps, scores, gates, case.blocks) if gates else scores @ steps)
    return np.stack(rows)


def extracted(sequence: Floats, mask: NDArray[np.bool_], parameters: Sequence[Floats]) -> Doubles:
    """States (U, T, H) of a GRU with torch's parameters; padding repeats the state before it."""
    weight_ih, weight_hh, bias_ih, bias_hh = (array.astype(np.float64) for array in parameters)
    state = np.zeros((len(sequence), weight_hh.shape[1]))
    states = np.zeros((*mask.shape, weight_hh.shape[1]))
    for t in range(mask.shape[1]):
        x = np.where(mask[:, t, None], sequence[:, t].astype(np.float64), 0.0)
        brought, recurrent = np.split(x @ weight_ih.T + bias_ih, 3, 1), np.split(state @ weight_hh.T + bias_hh, 3, 1)
        reset, kept = sigmoid(brought[0] + recurrent[0]), sigmoid(brought[1] + recurrent[1])
        proposed = np.tanh(brought[2] + reset * recurrent[2])
        state = np.where(mask[:, t, None], (1.0 - kept) * proposed + kept * state, state)
        states[:, t] = state
    return states

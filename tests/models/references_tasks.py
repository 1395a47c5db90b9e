"""Slow references of the multi-task and architecture-search layers."""

import math

import numpy as np

from tests.models.references import Array
from tests.models.references_features import State, tower


def mmoe_gates(logits: Array, tasks: int, experts: int, kind: str, top_k: int) -> Array:
    """(B, E, K) of logits (B, K * E): softmax, then all that reach the k-th largest."""
    gates = np.zeros((len(logits), experts, tasks))
    for b in range(len(logits)):
        for k in range(tasks):
            weights = np.exp(logits[b, k * experts : (k + 1) * experts])
            weights /= weights.sum()
            if kind != "softmax" and top_k < experts:
                weights[weights < sorted(weights)[-top_k]] = 0.0
                weights /= weights.sum()
            gates[b, :, k] = weights
    return gates


def mmoe(x: Array, gates: Array, state: State, layers: int) -> list[Array]:
    activations = ["relu"] * (layers - 1) + ["linear"]
    outputs = [tower(state, f"experts.{e}", x, activations) for e in range(gates.shape[1])]
    return [sum(gates[:, e, k : k + 1] * outputs[e] for e in range(len(outputs))) for k in range(gates.shape[2])]


def snr(inputs: list[Array], state: State, n_out: int, out_dim: int, u: Array | None) -> list[Array]:
    """Defaults zeta 1.1, gamma -0.1, beta 0.5; u given means training."""
    outputs = [np.zeros((len(inputs[0]), out_dim)) for _ in range(n_out)]
    for i, x in enumerate(inputs):
        for j in range(n_out):
            route = i * n_out + j
            alpha = float(state["log_alpha"][route, 0])
            score = alpha if u is None else (math.log(u[route, 0]) - math.log(1 - u[route, 0]) + alpha) / 0.5
            gate = min(max(1.2 / (1 + math.exp(-score)) - 0.1, 0.0), 1.0)
            if "weight" in state:
                outputs[j] += gate * x @ state["weight"][route].reshape(x.shape[1], out_dim)
            else:
                outputs[j] += gate * x
    return outputs


def grad_norm(weight: Array, norms: Array, losses: Array, power: float, relative: bool) -> tuple[float, float]:
    shares = np.exp(weight) / np.exp(weight).sum()
    average = float((shares * norms).sum()) / len(norms)
    total = 0.0
    for share, norm in zip(shares, norms, strict=True):
        difference = abs(share * norm - average)
        total += (difference / (average + 1e-6) if relative else difference) ** power
    return total, float((shares * losses).sum())


def choice_mask(sizes: list[int], mode: str) -> Array:
    """Rows of left, diff and none."""
    width = sum(sizes) if mode == "none" else max(sizes)
    rows = []
    for c, size in enumerate(sizes):
        start = {"left": 0, "diff": sizes[c - 1] if c else 0, "none": sum(sizes[:c])}[mode]
        stop = start + size if mode == "none" else size
        rows.append([1.0 if start <= column < stop else 0.0 for column in range(width)])
    return np.array(rows)


def nas_selection(
    segments: list[Array], alphas: list[Array], sizes: list[list[int]], mode: str, soft: float | None
) -> Array:
    """soft: the temperature of the softmax; None takes the largest alpha."""
    out = []
    for x, alpha, choices in zip(segments, alphas, sizes, strict=True):
        if soft is None:
            weights = np.eye(len(alpha))[int(np.argmax(alpha))]
        else:
            weights = np.exp(alpha / soft) / np.exp(alpha / soft).sum()
        out.append(x * (weights @ choice_mask(choices, mode)))
    return np.concatenate(out, 1)


def simple_nas(alpha: Array, threshold: float, temperature: float) -> list[float]:
    """Gates of the segments."""
    p = np.exp(alpha / temperature) / np.exp(alpha / temperature).sum()
    gates, total = [0.0] * len(p), 0.0
    for place, segment in enumerate(sorted(range(len(p)), key=lambda i: (-p[i], i))):
        gates[segment] = 1.0 if place == 0 or total < threshold or threshold >= 1 else 0.0
        total += p[segment]
    return gates

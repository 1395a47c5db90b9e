"""Slow references of the feature-crossing layers: one row, one pair, one number at a time."""

import math

import numpy as np

from tests.models.references import Array

State = dict[str, Array]


def normed(kernel: Array, norm: Array | None) -> Array:
    """Columns of the lengths asked for, none divided by less than a thousandth."""
    if norm is None:
        return kernel
    columns = [
        norm[j] * kernel[:, j] / max(math.sqrt(float(kernel[:, j] @ kernel[:, j])), 1e-3) for j in range(len(norm))
    ]
    return np.stack(columns, 1)


def tower(state: State, prefix: str, x: Array, activations: list[str]) -> Array:
    """A stack of dense layers under one name."""
    for i, activation in enumerate(activations):
        kernel = normed(state[f"{prefix}.dense.{i}.kernel"], state.get(f"{prefix}.dense.{i}.kernel_norm"))
        x = activate(x @ kernel + state[f"{prefix}.dense.{i}.bias"], activation)
    return x


def activate(x: Array, name: str) -> Array:
    if name == "relu":
        return np.where(x > 0, x, 0.0)
    if name == "tanh":
        return np.tanh(x)
    if name == "sigmoid":
        return 1 / (1 + np.exp(-x))
    return x


def group_int(left: list[Array], right: list[Array], kind: str, state: State) -> Array:
    """(B, L * R) for dot, (B, L * R, D) for multiply."""
    rows = []
    for b in range(len(left[0])):
        pairs = [one[b] * other[b] for one in left for other in right]
        if kind == "dot":
            rows.append([float(pair.sum()) for pair in pairs])
        elif state:
            rows.append([pair * tower(state, "mlp", pair, ["relu", "linear"])[0] for pair in pairs])
        else:
            rows.append(pairs)
    return np.array(rows)


def all_int(x: Array, state: State) -> Array:
    """(B, N, C), by way of all N * N products that the layer avoids."""
    kernel, bias = state["kernel"], state.get("bias")
    products = np.einsum("bnd,bmd->bnm", x, x)
    out = np.einsum("bnm,mc->bnc", products, kernel)
    if bias is not None:
        out = out + x.sum(2)[:, :, None] * bias
    return out


def c_dot(x: Array, state: State, project_dim: int) -> Array:
    rows, fields, dim = x.shape
    out = []
    for b in range(rows):
        flat = [
            sum(x[b, n, d] * state["project_weight"][n, p] for n in range(fields))
            for d in range(dim)
            for p in range(project_dim)
        ]
        compressed = tower(state, "compress_tower", np.array(flat), ["relu", "linear"])
        crossed = [
            sum(x[b, n, d] * compressed[d * project_dim + p] for d in range(dim))
            for n in range(fields)
            for p in range(project_dim)
        ]
        out.append([*crossed, *compressed])
    return np.array(out)


def can(user: Array, item: Array, layers: int, activation: str) -> Array:
    """One row: user (D,), item (layers * D * (D + 1),)."""
    dim = len(user)
    for layer in range(layers):
        start = layer * dim * (dim + 1)
        weight = item[start : start + dim * dim].reshape(dim, dim)
        bias = item[start + dim * dim : start + dim * (dim + 1)]
        user = activate(
            np.array([sum(user[i] * weight[i, j] for i in range(dim)) + bias[j] for j in range(dim)]), activation
        )
    return user


def dcn(x: Array, state: State, kind: str, layers: int) -> Array:
    out = []
    for x0 in x:
        crossed = x0
        for i in range(layers):
            bias = state[f"bias.{i}"]
            if kind == "vector":
                weight = normed(state[f"kernel.{i}"], state.get(f"kernel_norm.{i}"))
                crossed = x0 * float(crossed @ weight[:, 0]) + bias + crossed
            elif kind == "matrix":
                crossed = x0 * (crossed @ normed(state[f"kernel.{i}"], state.get(f"kernel_norm.{i}")) + bias) + crossed
            else:
                crossed = mixed_step(x0, crossed, state, i) + crossed
        out.append(crossed)
    return np.array(out)


def mixed_step(x0: Array, crossed: Array, state: State, i: int) -> Array:
    def matrix(name: str, expert: int) -> Array:
        norm = state.get(f"kernel_norm_{name}.{i}")
        return normed(state[f"{name}.{i}"][expert], None if norm is None else norm[expert])

    def gate(expert: int) -> Array:
        norm = state.get(f"kernel_norm_G.{i}")
        return normed(state[f"G.{i}"][expert][:, None], None if norm is None else norm[expert : expert + 1])[:, 0]

    experts = range(len(state[f"G.{i}"]))
    scores = np.exp([float(crossed @ gate(e)) for e in experts])
    total = np.zeros_like(x0)
    for e in experts:
        low = np.tanh(np.tanh(crossed @ matrix("V", e)) @ matrix("C", e))
        total += scores[e] / scores.sum() * x0 * (low @ matrix("U", e).T + state[f"bias.{i}"])
    return total


def cin(x: Array, state: State, maps: list[int], activation: str) -> Array:
    rows, fields, dim = x.shape
    before, out = x, []
    for k, width in enumerate(maps):
        z = np.zeros((rows, width, dim))
        for q in range(width):
            for h in range(before.shape[1]):
                for m in range(fields):
                    z[:, q] += state[f"conv.{k}.kernel"][h * fields + m, q] * before[:, h] * x[:, m]
            z[:, q] += state[f"conv.{k}.bias"][q]
        before = activate(z, activation) if k + 1 < len(maps) else z
        out.append(before.sum(2))
    return np.concatenate(out, 1)


def auto_int(x: Array, layers: int) -> Array:
    for _ in range(layers):
        scores = np.exp(np.einsum("bnd,bmd->bnm", x, x))
        x = np.einsum("bnm,bmd->bnd", scores / scores.sum(2, keepdims=True), x)
    return x


def se_net(fields: list[Array], state: State) -> list[Array]:
    means = np.stack([field.mean(1) for field in fields], 1)
    weights = tower(state, "cmp_tower", means, ["relu", "sigmoid"]) if state else means
    return [field * weights[:, n : n + 1] for n, field in enumerate(fields)]


def add_bias(x: Array, bias: Array, first: bool) -> Array:
    """One number at a time, the index of the bias worked out by hand."""
    out = x.copy()
    for index in np.ndindex(*x.shape):
        place = (*index[2:], index[1]) if first and x.ndim > 2 else index[1:]
        out[index] += bias[place] if bias.ndim > 1 else bias[place[-1]]
    return out

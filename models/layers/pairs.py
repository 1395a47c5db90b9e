"""The first layer of a scoring network for pairs of a target and a step of a history.

The network reads [q, k, q - k, q * k], and its first layer is linear, so

    [q, k, q - k, q * k] W = q (Wq + Wd) + k (Wk - Wd) + (q * k) Wp

and nothing of width 4 D is ever built. Many targets against one history take this further: q is a common factor of
the first and the last term, which makes the layer of all pairs one product of the targets with a matrix that depends
on the history alone.

Letters: B rows (or users), C targets of a row, T steps, D width, J units of the first layer, M real pairs.
"""

import torch
from torch import Tensor


def all_pairs_affine(kernel: Tensor, bias: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    """First affine map of every pair.

    Args:
        kernel: (4 D, J).
        bias: (J,).
        queries: (B, C, D).
        keys: (B, T, D).

    Returns:
        (B, C, T, J).
    """
    of_query, of_key, of_difference, of_product = kernel.chunk(4)
    from_keys = torch.matmul(keys, of_key - of_difference) + bias  # (B, T, J)
    from_query = of_query + of_difference
    if _history_first(queries.size(1), kernel.size(1)):
        per_history = keys.transpose(1, 2).unsqueeze(-1) * of_product.unsqueeze(1) + from_query.unsqueeze(1)
        from_pairs = torch.matmul(queries, per_history.flatten(2))
        from_pairs = from_pairs.view(queries.size(0), queries.size(1), keys.size(1), kernel.size(1))
        return from_pairs + from_keys.unsqueeze(1)
    from_pairs = torch.matmul(queries.unsqueeze(2) * keys.unsqueeze(1), of_product)
    return from_pairs + (torch.matmul(queries, from_query).unsqueeze(2) + from_keys.unsqueeze(1))


def _history_first(targets: int, units: int) -> bool:
    # With few targets the matrix of a history would be larger than its pairs.
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return 2 * targets > units
    # An exporter cannot choose at run time, and a graph is served one user and many candidates at a time.
    if torch.compiler.is_exporting():
        return True
    return 2 * targets > units


def chosen_pairs_affine(kernel: Tensor, bias: Tensor, queries: Tensor, keys: Tensor, pairs: Tensor) -> Tensor:
    """First affine map of some pairs.

    Args:
        kernel: (4 D, J).
        bias: (J,).
        queries: (B, C, D).
        keys: (B, T, D).
        pairs: indices (M, 3) into B, C and T.

    Returns:
        (M, J).
    """
    of_query, of_key, of_difference, of_product = kernel.chunk(4)
    query_rows = pairs[:, 0] * queries.size(1) + pairs[:, 1]
    key_rows = pairs[:, 0] * keys.size(1) + pairs[:, 2]
    flat_queries, flat_keys = queries.flatten(0, 1), keys.flatten(0, 1)
    chosen_queries = flat_queries.index_select(0, query_rows)
    chosen_keys = flat_keys.index_select(0, key_rows)
    from_queries = torch.addmm(bias, flat_queries, of_query + of_difference).index_select(0, query_rows)
    with_keys = torch.addmm(from_queries, chosen_keys, of_key - of_difference)
    return torch.addmm(with_keys, chosen_queries * chosen_keys, of_product)

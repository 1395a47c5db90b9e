"""Attention of a target over a history: DIN's raw scores, DIEN's softmax scores.

Both score a pair by a small network on [q, k, q - k, q * k]. Its first layer is linear, so

    [q, k, q - k, q * k] W = q (Wq + Wd) + k (Wk - Wd) + (q * k) Wp

and nothing of width 4 D is ever built. Many targets against one history take this further: q is a common factor of
the first and the last term, which makes the layer of all pairs one product of the targets with a matrix that depends
on the history alone.

Letters: B rows (or users), C targets of a row, T steps, D width, J units of the first layer, M real pairs.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.layers import advanced_activations
from models.layers.advanced_activations import Activation
from models.layers.dense import Dense
from models.layers.initializers import Initializer
from models.layers.masks import blank_padding, masked_softmax, step_mask
from models.layers.mlp import MLP, HiddenLayers
from models.layers.regularization import Regularized, Regularizer


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


def _check(queries: Tensor, keys: Tensor, width: int) -> None:
    if keys.dim() != 3 or keys.size(2) != width:
        raise ValueError(f"keys must be (B, T, {width}), got {list(keys.shape)}")
    if queries.dim() not in (2, 3) or queries.size(-1) != width or queries.size(0) != keys.size(0):
        raise ValueError(
            f"queries must be (B, {width}) or (B, C, {width}) for keys {list(keys.shape)}, got {list(queries.shape)}"
        )


def _scatter(scores: Tensor, pairs: Tensor, queries: Tensor, keys: Tensor) -> Tensor:
    flat = (pairs[:, 0] * queries.size(1) + pairs[:, 1]) * keys.size(1) + pairs[:, 2]
    empty = scores.new_zeros([queries.size(0) * queries.size(1) * keys.size(1)])
    return empty.index_copy(0, flat, scores).view(queries.size(0), queries.size(1), keys.size(1))


class DIN(Regularized):
    """Target attention without normalisation: interest = sum over t of a_t k_t, a_t = MLP[q, k_t, q - k_t, q * k_t].

    No softmax and no renormalisation after masking, so that the intensity of an interest survives. ``activation=None``
    means *linear* hidden layers here, which is a trap: give ``dice``, ``prelu`` or ``sigmoid``. While training, only
    real pairs enter the network, so padding touches no batch statistics.

    Source: Zhou et al. 2018, arXiv:1706.06978. Differs from it: q * k in place of the outer product, as its code does.

    Shapes: queries (B, D) with keys (B, T, D) and mask (B, T) give (B, D), or (B, T, D) where ``mode`` is not ``sum``;
    queries (B, C, D) give (B, C, D), or (B, C, T, D). An empty history gives zeros.

    Args:
        embedding_dim: D.
        hidden_units: widths of the scoring network, the last one 1.
        activation: of its hidden layers.
        initializer: of its kernels; None means glorot_normal.
        regularizer: penalty of its kernels.
        mode: ``sum`` pools over time, anything else returns the weighted steps.
        decay: divide the scores by the root of D.

    Raises:
        ValueError: if the last hidden unit is not 1, or a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import DIN
        >>> layer = DIN(embedding_dim=4, hidden_units=[8, 1], activation="dice")
        >>> layer(torch.ones(2, 4), torch.ones(2, 5, 4), torch.ones(2, 5, dtype=torch.bool)).shape
        torch.Size([2, 4])
    """

    def __init__(
        self,
        embedding_dim: int,
        hidden_units: Sequence[int],
        activation: Activation = None,
        initializer: Initializer | None = None,
        regularizer: Regularizer | None = None,
        mode: str = "sum",
        decay: bool = False,
    ) -> None:
        super().__init__()
        units = list(hidden_units)
        if not units or units[-1] != 1:
            raise ValueError(f"hidden_units must end with 1, got {units}")
        self.embedding_dim = embedding_dim
        self.mode = mode
        self.decay = decay
        self._hidden_units = units
        self._activation = activation
        self._initializer = initializer
        self.dense_tower = MLP(
            4 * embedding_dim,
            units,
            activations="linear" if activation is None else activation,
            initializers=initializer or "glorot_normal",
            kernel_regularizer=regularizer,
        )

    def get_config(self) -> dict[str, Any]:
        """Arguments that build an equal layer; a callable activation is given in its serialized form."""
        activation = self._activation
        if activation is not None and not isinstance(activation, str):
            activation = advanced_activations.serialize(advanced_activations.get(activation, self._hidden_units[0]))
        return {
            "embedding_dim": self.embedding_dim,
            "hidden_units": list(self._hidden_units),
            "activation": activation,
            "initializer": self._initializer,
            "mode": self.mode,
            "decay": self.decay,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "DIN":
        """Inverse of ``get_config``."""
        return cls(**config)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Interest, or the weighted steps."""
        _check(queries, keys, self.embedding_dim)
        real = step_mask(mask, keys)
        clean = blank_padding(keys, real)
        targets = queries.unsqueeze(1) if queries.dim() == 2 else queries
        scores = self._scores(targets, clean, real)
        if self.decay:
            scores = scores / self.embedding_dim**0.5
        if self.mode == "sum":
            interest = torch.matmul(scores, clean)
        else:
            interest = scores.unsqueeze(-1) * clean.unsqueeze(1)
        if queries.dim() == 2:
            return interest.squeeze(1)
        return interest

    def _scores(self, queries: Tensor, keys: Tensor, real: Tensor) -> Tensor:
        kernel, bias = self.dense_tower.first_affine()
        if self.training:
            pairs = real.unsqueeze(1).expand(-1, queries.size(1), -1).nonzero()
            affine = chosen_pairs_affine(kernel, bias, queries, keys, pairs)
            return _scatter(self.dense_tower.after_first_affine(affine).squeeze(-1), pairs, queries, keys)
        affine = all_pairs_affine(kernel, bias, queries, keys).flatten(0, 2)
        scores = self.dense_tower.after_first_affine(affine).view(queries.size(0), queries.size(1), keys.size(1))
        zero = torch.zeros((), dtype=scores.dtype, device=scores.device)
        return torch.where(real.unsqueeze(1), scores, zero)


class InterestAttention(nn.Module):
    """Softmax target attention: a = masked softmax of MLP[q, k, q - k, q * k] / sqrt(D).

    While training, only real pairs enter the network, so padding touches no batch statistics.

    Source: Zhou et al. 2019, arXiv:1809.03672, and Zhou et al. 2018, arXiv:1706.06978 for the scoring network. Differs
    from the former: a network in place of its bilinear score.

    Shapes: query (B, D) with keys (B, T, D) and mask (B, T) gives scores (B, T) or the weighted sum (B, D); query
    (B, C, D) gives (B, C, T) or (B, C, D). An empty history gives zeros. State: mlp.dense.{i}.*, mlp.bn.{i}.*,
    mlp.act.{i}.*, fc.*.

    Args:
        input_size: D.
        hidden_layers: widths of the scoring network, without the final 1.
        dropout: after each of its layers, while training.
        batchnorm: before each of its activations.
        activation: of its layers.
        return_scores: give the scores instead of the weighted sum.

    Raises:
        ValueError: if a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import InterestAttention
        >>> layer = InterestAttention(4, [8], return_scores=True).eval()
        >>> layer(torch.ones(2, 4), torch.ones(2, 5, 4)).sum(1).round(decimals=3).tolist()
        [1.0, 1.0]
    """

    def __init__(
        self,
        input_size: int,
        hidden_layers: Sequence[int],
        dropout: float = 0.0,
        batchnorm: bool = True,
        activation: Activation = "prelu",
        return_scores: bool = False,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.return_scores = return_scores
        self.mlp = HiddenLayers(4 * input_size, hidden_layers, dropout, batchnorm, activation)
        self.fc = Dense(self.mlp.out_features, 1)

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scores, or the sum that they weight."""
        _check(query, keys, self.input_size)
        real = step_mask(mask, keys)
        clean = blank_padding(keys, real)
        targets = query.unsqueeze(1) if query.dim() == 2 else query
        attention = masked_softmax(self._raw_scores(targets, clean, real), real.unsqueeze(1))
        result = attention if self.return_scores else torch.matmul(attention, clean)
        if query.dim() == 2:
            return result.squeeze(1)
        return result

    def _raw_scores(self, queries: Tensor, keys: Tensor, real: Tensor) -> Tensor:
        scale = self.input_size**-0.5
        kernel, bias = self.mlp.first_affine()
        if self.training:
            pairs = real.unsqueeze(1).expand(-1, queries.size(1), -1).nonzero()
            affine = chosen_pairs_affine(kernel, bias, queries, keys, pairs)
            scores = self.fc(self.mlp.after_first_affine(affine)).squeeze(-1) * scale
            return _scatter(scores, pairs, queries, keys)
        # Two axes: products of matrices with a bias, which runtimes fuse.
        affine = all_pairs_affine(kernel, bias, queries, keys).flatten(0, 2)
        raw: Tensor = self.fc(self.mlp.after_first_affine(affine)) * scale
        return raw.view(queries.size(0), queries.size(1), keys.size(1))


class BilinearAttention(nn.Module):
    """Softmax target attention with a bilinear score: a = masked softmax of h_t . (W q).

    Source: Zhou et al. 2019, arXiv:1809.03672. Differs from it: nothing.

    Shapes: query (B, Q) or (B, C, Q), keys (B, T, H), mask (B, T); returns scores (B, T) or (B, C, T).

    Args:
        key_size: H.
        query_size: Q.

    Raises:
        ValueError: if a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import BilinearAttention
        >>> BilinearAttention(key_size=4, query_size=3)(torch.ones(2, 3), torch.ones(2, 5, 4)).shape
        torch.Size([2, 5])
    """

    def __init__(self, key_size: int, query_size: int) -> None:
        super().__init__()
        self.attention_weight = nn.Parameter(torch.empty(key_size, query_size))
        nn.init.xavier_uniform_(self.attention_weight)

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scores."""
        return bilinear_scores(query, keys, self.attention_weight, step_mask(mask, keys))


def bilinear_scores(queries: Tensor, keys: Tensor, weight: Tensor, real: Tensor) -> Tensor:
    """Masked softmax of k_t . (W q): queries (B, Q) or (B, C, Q), keys (B, T, H), weight (H, Q), real (B, T)."""
    targets = queries.unsqueeze(1) if queries.dim() == 2 else queries
    # The keys' half depends on the history alone.
    scores = torch.matmul(targets, torch.matmul(keys, weight).transpose(1, 2))
    attention = masked_softmax(scores, real.unsqueeze(1))
    if queries.dim() == 2:
        return attention.squeeze(1)
    return attention

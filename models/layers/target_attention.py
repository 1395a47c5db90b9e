"""Attention of a target over a history: DIN's raw scores, DIEN's softmax scores.

Both score a pair by a small network on [q, k, q - k, q * k], whose first layer is ``models.layers.pairs``.

Letters: B rows (or users), C targets of a row, T steps, D width.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.layers import advanced_activations
from models.layers.advanced_activations import Activation
from models.layers.dense import Dense
from models.layers.initializers import Initializer
from models.layers.interest_operators import BILINEAR, Scoring, network_scoring, target_interest
from models.layers.masks import blank_padding, masked_softmax, step_mask
from models.layers.mlp import MLP, HiddenLayers
from models.layers.pairs import all_pairs_affine, chosen_pairs_affine
from models.layers.regularization import Regularized, Regularizer


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
        targets = queries.unsqueeze(1) if queries.dim() == 2 else queries
        interest = self._interest(targets, keys, real)
        if queries.dim() == 2:
            return interest.squeeze(1)
        return interest

    def scoring(self) -> Scoring | None:
        """How pairs are scored in evaluation mode, for ``interest_operators``; None where those do not know it."""
        tower = self.dense_tower
        scale = self.embedding_dim**-0.5 if self.decay else 1.0
        last = tower.dense[-1]
        if self.mode != "sum" or len(tower.dense) < 2 or not isinstance(last, Dense):
            return None
        return network_scoring(tower.dense[:-1], tower.bn[:-1], tower.act[:-1], last, scale)

    def _interest(self, queries: Tensor, keys: Tensor, real: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._weighted(queries, blank_padding(keys, real), real)
        if torch.compiler.is_exporting() and not self.training:
            scoring = self.scoring()
            if scoring is not None:
                return attended_by(queries, keys, real, scoring, "sum")
        return self._weighted(queries, blank_padding(keys, real), real)

    def _weighted(self, queries: Tensor, keys: Tensor, real: Tensor) -> Tensor:
        scores = self._scores(queries, keys, real)
        if self.decay:
            scores = scores / self.embedding_dim**0.5
        if self.mode == "sum":
            return torch.matmul(scores, keys)
        return scores.unsqueeze(-1) * keys.unsqueeze(1)

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
        targets = query.unsqueeze(1) if query.dim() == 2 else query
        result = self._attended(targets, keys, real)
        if query.dim() == 2:
            return result.squeeze(1)
        return result

    def scoring(self) -> Scoring | None:
        """How pairs are scored in evaluation mode, for ``interest_operators``; None where those do not know it."""
        return network_scoring(self.mlp.dense, self.mlp.bn, self.mlp.act, self.fc, self.input_size**-0.5)

    def _attended(self, queries: Tensor, keys: Tensor, real: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._weighted(queries, blank_padding(keys, real), real)
        if torch.compiler.is_exporting() and not self.training and not self.return_scores:
            scoring = self.scoring()
            if scoring is not None:
                return attended_by(queries, keys, real, scoring, "softmax")
        return self._weighted(queries, blank_padding(keys, real), real)

    def _weighted(self, queries: Tensor, keys: Tensor, real: Tensor) -> Tensor:
        attention = masked_softmax(self._raw_scores(queries, keys, real), real.unsqueeze(1))
        if self.return_scores:
            return attention
        return torch.matmul(attention, keys)

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

    def scoring(self) -> Scoring | None:
        """How pairs are scored, for ``interest_operators``."""
        return Scoring(BILINEAR, [self.attention_weight], 1.0)


def bilinear_scores(queries: Tensor, keys: Tensor, weight: Tensor, real: Tensor) -> Tensor:
    """Masked softmax of k_t . (W q): queries (B, Q) or (B, C, Q), keys (B, T, H), weight (H, Q), real (B, T)."""
    targets = queries.unsqueeze(1) if queries.dim() == 2 else queries
    # The keys' half depends on the history alone.
    scores = torch.matmul(targets, torch.matmul(keys, weight).transpose(1, 2))
    attention = masked_softmax(scores, real.unsqueeze(1))
    if queries.dim() == 2:
        return attention.squeeze(1)
    return attention


def attended_by(queries: Tensor, keys: Tensor, real: Tensor, scoring: Scoring, mode: str) -> Tensor:
    """The operator ``target_interest`` on what a layer holds: the interest (B, C, D)."""
    interest: Tensor = target_interest(queries, keys, real, scoring.tensors, scoring.activation, mode, scoring.scale)
    return interest

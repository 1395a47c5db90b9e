"""DIEN as layers: extract interests from a history, evolve them towards a target."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.advanced_activations import Activation
from models.layers.dense import Dense
from models.layers.gru import GRU
from models.layers.initializers import Initializer, initialize
from models.layers.interest_operators import Scoring, evolved_interest
from models.layers.masks import step_mask
from models.layers.recurrent import AIGRU, AGRUCell
from models.layers.regularization import Regularized, Regularizer
from models.layers.target_attention import BilinearAttention, InterestAttention, attended_by, bilinear_scores

EVOLUTIONS = ("GRU", "AIGRU", "AGRU", "AUGRU")
ATTENTIONS = ("mlp", "bilinear")


class DIEN(Regularized):
    """Extractor GRU, bilinear softmax attention, attention GRU: the final state of the evolving interest.

    h = GRU(keys); a = masked softmax over t of h_t . (W q); result = final state of AGRU or AUGRU over h with a.

    Source: Zhou et al. 2019, arXiv:1809.03672. Differs from it: nothing.

    Shapes: queries (B, Q), keys (B, T, D), mask (B, T); returns (B, H). Queries (B, C, Q) give (B, C, H). An empty
    history gives zeros. State: gru.* as ``torch.nn.GRU``, cell.*, attention_weight (H, Q).

    Args:
        embedding_dim: D.
        num_units: H.
        att_type: AGRU or AUGRU.
        activation: of the attention GRU's proposed state.
        initializer: of the attention weight and of the cell's weights.
        regularizer: penalty of the attention weight and of the cell's weights.
        query_dim: Q, default H.

    Raises:
        ValueError: if ``att_type`` is unknown or a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import DIEN
        >>> layer = DIEN(embedding_dim=4, num_units=3, att_type="AUGRU")
        >>> layer(torch.ones(2, 3), torch.ones(2, 5, 4), torch.ones(2, 5, dtype=torch.bool)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        embedding_dim: int,
        num_units: int,
        att_type: str = "AGRU",
        activation: Activation = "tanh",
        initializer: Initializer = "he_uniform",
        regularizer: Regularizer | None = None,
        query_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.query_dim = query_dim or num_units
        self.gru = GRU(embedding_dim, num_units)
        self.cell = AGRUCell(num_units, num_units, att_type, activation, initializer, regularizer)
        self.attention_weight = nn.Parameter(torch.empty(num_units, self.query_dim))
        initialize(self.attention_weight, initializer, self.query_dim, num_units)
        self.penalize("attention_weight", regularizer)

    def forward(self, queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """The evolved interest."""
        if queries.dim() not in (2, 3) or queries.size(-1) != self.query_dim:
            raise ValueError(
                f"queries must be (B, {self.query_dim}) or (B, C, {self.query_dim}), got {list(queries.shape)}"
            )
        real = step_mask(mask, keys)
        states = self.gru(keys, real)
        scores = bilinear_scores(queries, states, self.attention_weight, real)
        return self.cell.run_to_end(states, scores, None, real)


class WeightedSum(nn.Module):
    """Readout of the GRU evolution: the sum of the states that the attention weights."""

    def forward(self, states: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
        """(B, C, H) of states (B, T, H) and scores (B, C, T); the scores are zero where the mask is."""
        return torch.matmul(scores, states)


class ScaledInputs(nn.Module):
    """Readout of the AIGRU evolution: its final state."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.aigru = AIGRU(width, width)

    def forward(self, states: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
        """(B, C, H) of states (B, T, H), scores (B, C, T) and mask (B, T)."""
        return self.aigru.run_to_end(states, scores, mask)


class SteeredUpdates(nn.Module):
    """Readout of the AGRU and AUGRU evolutions: the final state."""

    def __init__(self, width: int, att_type: str) -> None:
        super().__init__()
        self.cell = AGRUCell(width, width, att_type)

    def forward(self, states: Tensor, scores: Tensor, mask: Tensor) -> Tensor:
        """(B, C, H) of states (B, T, H), scores (B, C, T) and mask (B, T)."""
        return self.cell.run_to_end(states, scores, None, mask)

    def steered(self, queries: Tensor, states: Tensor, mask: Tensor, scoring: Scoring) -> Tensor:
        """The same with the attention of queries (B, C, Q) in it, as one operator."""
        cell = self.cell
        gates_bias, bias_n = cell.biases()
        interest: Tensor = evolved_interest(
            queries,
            states,
            mask,
            scoring.tensors,
            cell.weight_ih,
            gates_bias,
            cell.weight_hh,
            bias_n,
            scoring.activation,
            scoring.scale,
        )
        return interest


class Unchanged(nn.Module):
    """The place of the second GRU in the evolutions that attend to the extractor's states."""

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """The states."""
        return states


class Interest(nn.Module):
    """Extractor GRU, attention and one of four evolutions, as DIEN's ablation compares them.

    GRU: a second GRU over the extractor's states, then the sum that the attention weights. AIGRU, AGRU, AUGRU: the
    attention is taken over the extractor's states and steers the second GRU; the result is its final state.

    Source: Zhou et al. 2019, arXiv:1809.03672. Differs from it: nothing with ``attention="bilinear"``; ``mlp`` scores
    by a network as DIN does.

    Shapes: query (B, Q) or (B, C, Q), keys (B, T, D), mask (B, T); returns (B, H) or (B, C, H).

    Args:
        input_size: Q, and the default of D and H.
        gru_type: GRU, AIGRU, AGRU or AUGRU.
        gru_dropout: dropout of the extractor's states on their way into attention and evolution.
        att_hidden_layers: of the scoring network.
        att_dropout: of the scoring network.
        att_batchnorm: of the scoring network.
        att_activation: of the scoring network.
        attention: mlp or bilinear.
        key_size: D.
        hidden_size: H.

    Raises:
        ValueError: if ``gru_type`` or ``attention`` is unknown or a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import Interest
        >>> layer = Interest(4, gru_type="AIGRU", att_hidden_layers=(8,))
        >>> layer(torch.ones(2, 6, 4), torch.ones(2, 5, 4)).shape
        torch.Size([2, 6, 4])
    """

    def __init__(
        self,
        input_size: int,
        gru_type: str = "AUGRU",
        gru_dropout: float = 0.0,
        att_hidden_layers: Sequence[int] = (80, 40),
        att_dropout: float = 0.0,
        att_batchnorm: bool = True,
        att_activation: Activation = "prelu",
        attention: str = "mlp",
        key_size: int | None = None,
        hidden_size: int | None = None,
    ) -> None:
        super().__init__()
        kind = gru_type.upper()
        if kind not in EVOLUTIONS:
            raise ValueError(f"gru_type must be one of {', '.join(EVOLUTIONS)}; got {gru_type!r}")
        if attention not in ATTENTIONS:
            raise ValueError(f"attention must be one of {', '.join(ATTENTIONS)}; got {attention!r}")
        width = hidden_size or input_size
        self.gru_type = kind
        self.input_size = input_size
        self.hidden_size = width
        self.interest_extractor = GRU(key_size or input_size, width)
        self.dropout = nn.Dropout(gru_dropout)
        # The scoring network compares query and state element by element, so they must be of one width.
        self.bridge: nn.Module = nn.Identity()
        if attention == "mlp":
            if width != input_size:
                self.bridge = Dense(input_size, width)
            self.attention: nn.Module = InterestAttention(
                width, att_hidden_layers, att_dropout, att_batchnorm, att_activation, return_scores=True
            )
        else:
            self.attention = BilinearAttention(width, input_size)
        self.second_gru: nn.Module = GRU(width, width) if kind == "GRU" else Unchanged()
        self.interest_evolution = _readout(kind, width)

    def forward(self, query: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
        """The evolved interest."""
        real = step_mask(mask, keys)
        return self.evolve(query, self.extract(keys, real), real)

    def extract(self, keys: Tensor, mask: Tensor) -> Tensor:
        """States of the extractor, (B, T, H): what the auxiliary loss supervises."""
        states: Tensor = self.interest_extractor(keys, mask)
        return states

    def evolve(self, query: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """Interest towards the query, (B, H) or (B, C, H), from the extractor's states."""
        if query.dim() not in (2, 3) or query.size(-1) != self.input_size:
            raise ValueError(
                f"query must be (B, {self.input_size}) or (B, C, {self.input_size}), got {list(query.shape)}"
            )
        targets = query.unsqueeze(1) if query.dim() == 2 else query
        interest = self._evolved(self.bridge(targets), self.second_gru(self.dropout(states), mask), mask)
        if query.dim() == 2:
            return interest.squeeze(1)
        return interest

    def _evolved(self, targets: Tensor, attended: Tensor, mask: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._attention_then_evolution(targets, attended, mask)
        if torch.compiler.is_exporting() and not self.training:
            scoring: Scoring | None = self.attention.scoring()  # type: ignore[operator]
            if scoring is not None and isinstance(self.interest_evolution, SteeredUpdates):
                return self.interest_evolution.steered(targets, attended, mask, scoring)
            if scoring is not None and isinstance(self.interest_evolution, WeightedSum):
                return attended_by(targets, attended, mask, scoring, "softmax")
        return self._attention_then_evolution(targets, attended, mask)

    def _attention_then_evolution(self, targets: Tensor, attended: Tensor, mask: Tensor) -> Tensor:
        interest: Tensor = self.interest_evolution(attended, self.attention(targets, attended, mask), mask)
        return interest


def _readout(kind: str, width: int) -> nn.Module:
    if kind == "GRU":
        return WeightedSum()
    if kind == "AIGRU":
        return ScaledInputs(width)
    return SteeredUpdates(width, kind)

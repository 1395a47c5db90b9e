"""From a vector a user to one outcome a treatment, and to the probability of each treatment."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from models.layers.dense import Dense
from models.layers.mlp import HiddenLayers

HEAD_FORMS: Final = ("separate", "offset")


class OutcomeHead(nn.Module):
    """Hidden layers and one linear output.

    Shapes: x (..., in_features); returns (..., 1).

    Args:
        in_features: width of x.
        hidden_layers: widths; none makes the head linear in x.
        activation: of every hidden layer.
        dropout: share of activations dropped while training.

    Raises:
        ValueError: as ``HiddenLayers``.
    """

    def __init__(
        self, in_features: int, hidden_layers: Sequence[int], activation: str = "elu", dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.hidden: nn.Module = nn.Identity()
        width = in_features
        if hidden_layers:
            self.hidden = HiddenLayers(in_features, hidden_layers, dropout=dropout, activation=activation)
            width = hidden_layers[-1]
        self.output = Dense(width, 1)

    def forward(self, x: Tensor) -> Tensor:
        """One number a row."""
        value: Tensor = self.output(self.hidden(x))
        return value


class OutcomeHeads(nn.Module):
    """One head a treatment over the same representation.

    ``separate`` heads give the outcomes themselves; with ``offset`` the control's head gives its outcome and every
    other head the difference to it, so that shrinking a head shrinks an effect and not an outcome.

    Shapes: x (U, D); returns (U, K).

    Args:
        heads: K of them, the control's first; each maps (U, D) to (U, 1).
        form: ``separate`` or ``offset``.

    Raises:
        ValueError: if ``form`` is unknown.
    """

    def __init__(self, heads: Sequence[nn.Module], form: str = "separate") -> None:
        super().__init__()
        if form not in HEAD_FORMS:
            raise ValueError(f"form must be one of {', '.join(HEAD_FORMS)}; got {form!r}")
        self.heads = nn.ModuleList(heads)
        self.offset = form == "offset"

    def forward(self, x: Tensor) -> Tensor:
        """The outcome under each treatment."""
        values: list[Tensor] = []
        for head in self.heads:
            values.append(head(x))
        outcome = torch.cat(values, -1)
        if self.offset:
            control = outcome[:, :1]
            outcome = torch.cat([control, control + outcome[:, 1:]], -1)
        return outcome


class PropensityHead(nn.Module):
    """Logits of the treatments: hidden layers, if any, and one linear layer.

    Shapes: x (U, D); returns (U, K), whose softmax is the probability of each treatment.
    """

    def __init__(self, in_features: int, treatments: int, hidden_layers: Sequence[int], activation: str) -> None:
        super().__init__()
        self.hidden: nn.Module = nn.Identity()
        width = in_features
        if hidden_layers:
            self.hidden = HiddenLayers(in_features, hidden_layers, activation=activation)
            width = hidden_layers[-1]
        self.output = Dense(width, treatments)

    def forward(self, x: Tensor) -> Tensor:
        """Propensity logits."""
        logits: Tensor = self.output(self.hidden(x))
        return logits


class NoPropensity(nn.Module):
    """Stands where a network does not estimate propensities: zeros, the same probability for every treatment.

    Shapes: x (U, D); returns (U, K).
    """

    def __init__(self, treatments: int) -> None:
        super().__init__()
        self.treatments = treatments

    def forward(self, x: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros([x.size(0), self.treatments], dtype=x.dtype, device=x.device)

"""Next-behaviour discrimination: supervision for the states of DIEN's interest extractor."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.layers.advanced_activations import Activation
from models.layers.discrimination import SigmoidDiscrimination
from models.layers.logits import log_sigmoid
from models.layers.masks import step_mask
from models.layers.mlp import MLP


class AuxiliaryLoss(nn.Module):
    """Tell the next behaviour from one that did not happen, given the state before it.

    For every step t whose step t + 1 is real too: z+ = net[h_t, click_{t+1}], z- = net[h_t, noclick_{t+1}]; the loss is
    the mean over all 2 M terms of -log sigmoid(z+) and -log sigmoid(-z-), and 0 where M = 0. Training only.

    Source: Zhou et al. 2019, arXiv:1809.03672. Differs from it: a network in place of the inner product, and the mean
    is over real terms instead of sequences.

    Shapes: states (B, T, S), click_seq and noclick_seq (B, T, D), mask (B, T); all unshifted. Returns a scalar. State:
    net.dense.{i}.*.

    Args:
        input_size: D.
        hidden_layers: widths of the network, without the final 1.
        activation: of its hidden layers.
        state_size: S, where it is not D.

    Raises:
        ValueError: if a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import AuxiliaryLoss
        >>> layer = AuxiliaryLoss(input_size=3, hidden_layers=(4,))
        >>> sequence, mask = torch.ones(2, 5, 3), torch.zeros(2, 5, dtype=torch.bool)
        >>> layer(sequence, sequence, sequence, mask).item()
        0.0
    """

    def __init__(
        self,
        input_size: int,
        hidden_layers: Sequence[int] = (100, 50),
        activation: Activation = "sigmoid",
        state_size: int | None = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.state_size = state_size or input_size
        self.net = MLP(
            self.state_size + input_size,
            [*hidden_layers, 1],
            activations=[*([activation] * len(hidden_layers)), None],
            use_weight_norm=False,
        )
        self.pieces = isinstance(activation, str) and activation.lower() == "sigmoid" and len(hidden_layers) > 0

    def forward(self, states: Tensor, click_seq: Tensor, noclick_seq: Tensor, mask: Tensor | None) -> Tensor:
        """The loss."""
        if states.dim() != 3 or states.size(2) != self.state_size:
            raise ValueError(f"states must be (B, T, {self.state_size}), got {list(states.shape)}")
        expected = [states.size(0), states.size(1), self.input_size]
        if list(click_seq.shape) != expected or list(noclick_seq.shape) != expected:
            raise ValueError(
                f"click_seq and noclick_seq must be {expected}, "
                f"got {list(click_seq.shape)} and {list(noclick_seq.shape)}"
            )
        real = step_mask(mask, states)
        pairs = (real[:, :-1] & real[:, 1:]).nonzero()
        before = pairs[:, 0] * states.size(1) + pairs[:, 1]
        state = states.reshape(-1, self.state_size).index_select(0, before)
        clicked = click_seq.reshape(-1, self.input_size).index_select(0, before + 1)
        not_clicked = noclick_seq.reshape(-1, self.input_size).index_select(0, before + 1)
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._plain(state, clicked, not_clicked)
        if self.pieces:
            return self._in_pieces(state, clicked, not_clicked)
        return self._plain(state, clicked, not_clicked)

    def _plain(self, state: Tensor, clicked: Tensor, not_clicked: Tensor) -> Tensor:
        z = self.net(torch.cat([torch.cat([state, clicked], 1), torch.cat([state, not_clicked], 1)])).squeeze(-1)
        count = state.size(0)
        # An empty sum keeps the graph connected: the loss is 0 and so is its gradient.
        terms = -(log_sigmoid(z[:count]).sum() + log_sigmoid(-z[count:]).sum())
        return terms / max(2 * count, 1)

    @torch.jit.unused
    def _in_pieces(self, state: Tensor, clicked: Tensor, not_clicked: Tensor) -> Tensor:
        layers = [part for dense in self.net.dense for part in dense.affine()]  # type: ignore[operator]
        loss: Tensor = SigmoidDiscrimination.apply(state, clicked, not_clicked, *layers)  # type: ignore[no-untyped-call]
        return loss

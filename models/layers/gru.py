"""GRU over a masked sequence, with the parameter names and gate order (r, z, n) of ``torch.nn.GRU``."""

import math

import torch
from torch import Tensor, nn

from models.layers import attention_gru
from models.layers.masks import blank_padding, step_mask


@torch.library.custom_op("ctrlift::gru_states", mutates_args=())
def gru_states(
    sequence: Tensor, mask: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> Tensor:
    """States (B, T, H) of a masked GRU, gate order r, z, n, as one operator for exporters."""
    states, _ = attention_gru.run(*_as_attention_gru(sequence, mask, weight_ih, weight_hh, bias_ih, bias_hh))
    return states.squeeze(-1).permute(2, 0, 1).contiguous()


@gru_states.register_fake
def _(sequence: Tensor, mask: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor) -> Tensor:
    return sequence.new_empty(sequence.size(0), sequence.size(1), weight_hh.size(1))


def _as_attention_gru(
    sequence: Tensor, mask: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    # torch's z is the share of the old state that is kept, u the share replaced: u = 1 - sig(v) = sig(-v).
    width = weight_hh.size(1)
    input_weight = _update_first(weight_ih, width)
    recurrent_weight = _update_first(weight_hh, width)
    # The recurrent bias of n stays inside the reset product, all others join the input half.
    input_bias = _update_first(bias_ih, width)
    recurrent_bias = _update_first(bias_hh, width)
    bias = input_bias + torch.cat([recurrent_bias[: 2 * width], torch.zeros_like(recurrent_bias[2 * width :])])
    gates = attention_gru.input_half(sequence, input_weight, bias)
    initial = torch.zeros([width, sequence.size(0), 1], dtype=sequence.dtype, device=sequence.device)
    return gates, recurrent_weight, recurrent_bias[2 * width :], mask.t().unsqueeze(-1).to(sequence.dtype), initial


def _update_first(stacked: Tensor, width: int) -> Tensor:
    return torch.cat([-stacked[width : 2 * width], stacked[:width], stacked[2 * width :]])


class GRU(nn.Module):
    """One GRU layer that carries its state over padding, wherever the padding is.

    Source: Cho et al. 2014, arXiv:1406.1078. Differs from it: the reset comes after the recurrent product, as cuDNN
    and torch have it.

    Shapes: sequence (B, T, D), mask (B, T); returns states (B, T, H), the carried state on padded steps. State:
    weight_ih_l0 (3H, D), weight_hh_l0 (3H, H), bias_ih_l0, bias_hh_l0 (3H,), row blocks r, z, n.

    Args:
        input_size: D.
        hidden_size: H.

    Raises:
        ValueError: if a width is not positive, or the sequence or the mask does not fit.

    Example:
        >>> import torch
        >>> from models.layers import GRU
        >>> GRU(4, 3)(torch.ones(2, 5, 4), torch.ones(2, 5, dtype=torch.bool)).shape
        torch.Size([2, 5, 3])
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        if input_size < 1 or hidden_size < 1:
            raise ValueError(f"input_size and hidden_size must be at least 1, got {input_size} and {hidden_size}")
        self.input_size = input_size
        self.hidden_size = hidden_size
        bound = 1.0 / math.sqrt(hidden_size)
        self.weight_ih_l0 = nn.Parameter(torch.empty(3 * hidden_size, input_size).uniform_(-bound, bound))
        self.weight_hh_l0 = nn.Parameter(torch.empty(3 * hidden_size, hidden_size).uniform_(-bound, bound))
        self.bias_ih_l0 = nn.Parameter(torch.empty(3 * hidden_size).uniform_(-bound, bound))
        self.bias_hh_l0 = nn.Parameter(torch.empty(3 * hidden_size).uniform_(-bound, bound))

    def forward(self, sequence: Tensor, mask: Tensor | None = None) -> Tensor:
        """States of all steps."""
        if sequence.dim() != 3 or sequence.size(2) != self.input_size:
            raise ValueError(f"sequence must be (B, T, {self.input_size}), got {list(sequence.shape)}")
        real = step_mask(mask, sequence)
        clean = blank_padding(sequence, real)
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._run(clean, real)
        if torch.compiler.is_exporting():
            states: Tensor = gru_states(
                clean, real, self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0
            )
            return states
        return self._run(clean, real)

    def _run(self, sequence: Tensor, mask: Tensor) -> Tensor:
        gates, weight_hh, bias_n, share, initial = _as_attention_gru(
            sequence, mask, self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0
        )
        return attention_gru.run(gates, weight_hh, bias_n, share, initial)[0].squeeze(-1).permute(2, 0, 1)


def last_state(states: Tensor) -> Tensor:
    """The state after the last step, (B, H) of (B, T, H): padding carries it there. Zeros where T = 0."""
    if states.size(1) == 0:
        return states.sum(1)
    return states[:, -1]

"""GRU variants steered by attention: the cell of AGRU and AUGRU, running it over time, and AIGRU."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers import advanced_activations, attention_gru
from models.layers.advanced_activations import Activation, Elementwise
from models.layers.gru import GRU, last_state
from models.layers.initializers import Initializer, initialize
from models.layers.masks import blank_padding, step_mask
from models.layers.regularization import Regularized, Regularizer
from models.layers.tensor_array import create_ta

ATTENTION_TYPES = ("AGRU", "AUGRU")


class AGRUCell(Regularized):
    """One step of a GRU whose update is steered by an attention score a.

        r = sig(W_r x + U_r h)      u = sig(W_u x + U_u h)      n = act(W_n x + r * U_n h)      (biases left out)
        AGRU: h' = (1 - a) h + a n              AUGRU: h' = (1 - a u) h + a u n

    a = 0 returns the state exactly. u is the share that is *replaced* (torch's z is the share kept).

    Source: Zhou et al. 2019, arXiv:1809.03672; GRU: Cho et al. 2014, arXiv:1406.1078. Differs from them: nothing with
    ``reset_after``; without it the reset is applied to h before the product, as TensorFlow's weights expect.

    Shapes: x (B, D), state (B, H), att_score (B, 1) or (B,); returns (B, H). State: weight_ih (G*H, D), weight_hh
    (G*H, H), bias_ih, bias_hh (G*H,); row blocks u, r, n for AUGRU and r, n for AGRU.

    Args:
        input_size: D.
        units: H.
        att_type: AGRU or AUGRU, in any case.
        activation: of n.
        initializer: of both weights; None means he_normal.
        regularizer: penalty of both weights.
        reset_after: see above.

    Raises:
        ValueError: if ``att_type`` is unknown, a width is not positive, a tensor does not fit, or AGRU gets no score.

    Example:
        >>> import torch
        >>> from models.layers import AGRUCell
        >>> cell, state = AGRUCell(4, 3, "AUGRU"), torch.ones(2, 3)
        >>> bool((cell(torch.ones(2, 4), state, torch.zeros(2, 1)) == state).all())
        True
    """

    def __init__(
        self,
        input_size: int,
        units: int,
        att_type: str = "AGRU",
        activation: Activation = "tanh",
        initializer: Initializer | None = None,
        regularizer: Regularizer | None = None,
        reset_after: bool = True,
    ) -> None:
        super().__init__()
        if input_size < 1 or units < 1:
            raise ValueError(f"input_size and units must be at least 1, got {input_size} and {units}")
        if att_type.upper() not in ATTENTION_TYPES:
            raise ValueError(f"att_type must be one of {', '.join(ATTENTION_TYPES)}; got {att_type!r}")
        self.input_size = input_size
        self.units = units
        self.att_type = att_type.upper()
        self.reset_after = reset_after
        self.activation = advanced_activations.get(activation, units) or advanced_activations.identity()
        # What the shared recurrence covers; the rest runs step by step.
        is_tanh = isinstance(self.activation, Elementwise) and self.activation.name == "tanh"
        self.fused = reset_after and is_tanh
        blocks = 3 if self.att_type == "AUGRU" else 2
        self.weight_ih = nn.Parameter(torch.empty(blocks * units, input_size))
        self.weight_hh = nn.Parameter(torch.empty(blocks * units, units))
        self.bias_ih = nn.Parameter(torch.zeros(blocks * units))
        self.bias_hh = nn.Parameter(torch.zeros(blocks * units))
        for weight, fan_in in ((self.weight_ih, input_size), (self.weight_hh, units)):
            for block in weight.detach().chunk(blocks):
                initialize(block, initializer or "he_normal", fan_in, units)
        self.penalize("weight_ih", regularizer)
        self.penalize("weight_hh", regularizer)

    def forward(self, x: Tensor, state: Tensor, att_score: Tensor | None = None) -> Tensor:
        """The next state; without a score AUGRU is a plain GRU."""
        if x.size(-1) != self.input_size or state.size(-1) != self.units:
            raise ValueError(
                f"x must be (B, {self.input_size}) and state (B, {self.units}), "
                f"got {list(x.shape)} and {list(state.shape)}"
            )
        if att_score is None:
            if self.att_type == "AGRU":
                raise ValueError("att_score must be given for AGRU, got None")
            score = torch.ones_like(state[:, :1])
        else:
            score = att_score
        if score.dim() == 1:
            score = score.unsqueeze(1)
        if score.dim() != 2 or score.size(1) != 1:
            raise ValueError(f"att_score must be (B,) or (B, 1), got {list(score.shape)}")
        return self.step(F.linear(x, self.weight_ih, self.bias_ih), state, score)

    def step(self, gates: Tensor, state: Tensor, score: Tensor) -> Tensor:
        """The next state from an input half: gates (..., G*H), state (..., H), score (..., 1)."""
        width = self.units
        split = self.weight_hh.size(0) - width
        squashed = torch.sigmoid(gates[..., :split] + F.linear(state, self.weight_hh[:split], self.bias_hh[:split]))
        reset = squashed[..., split - width :]
        weight_n, bias_n = self.weight_hh[split:], self.bias_hh[split:]
        if self.reset_after:
            n = self.activation(gates[..., split:] + reset * F.linear(state, weight_n, bias_n))
        else:
            n = self.activation(gates[..., split:] + F.linear(reset * state, weight_n, bias_n))
        share = score
        if split > width:
            share = score * squashed[..., :width]
        stepped: Tensor = state + share * (n - state)
        return stepped

    def run(
        self, inputs: Tensor, att_scores: Tensor, init_state: Tensor | None = None, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """All steps of a sequence; padding carries the state.

        Args:
            inputs: (B, T, D).
            att_scores: (B, T), or (B, C, T) for C candidates that share the sequence.
            init_state: (B, H), or (B, C, H); zeros by default.
            mask: (B, T).

        Returns:
            Outputs (B, T, H), zero on padding, and the final state (B, H); with candidates (B, C, T, H), (B, C, H).
        """
        scores, state, real = self._prepare(inputs, att_scores, init_state, mask)
        if self.fused:
            gates, bias_n = self._gates(inputs, real)
            by_time, final = attention_gru.run(
                gates, self.weight_hh, bias_n, scores.permute(2, 0, 1), state.permute(2, 0, 1)
            )
            states, final = by_time.permute(2, 3, 0, 1), final.permute(1, 2, 0)
        else:
            states, final = self._step_by_step(blank_padding(inputs, real), scores, state)
        outputs = blank_padding(states, real.unsqueeze(1).expand(-1, states.size(1), -1))
        if att_scores.dim() == 2:
            return outputs.squeeze(1), final.squeeze(1)
        return outputs, final

    def run_to_end(
        self, inputs: Tensor, att_scores: Tensor, init_state: Tensor | None = None, mask: Tensor | None = None
    ) -> Tensor:
        """The final state of ``run`` alone: (B, H), or (B, C, H)."""
        scores, state, real = self._prepare(inputs, att_scores, init_state, mask)
        if self.fused:
            gates, bias_n = self._gates(inputs, real)
            final = attention_gru.run_to_end(
                gates, self.weight_hh, bias_n, scores.permute(2, 0, 1), state.permute(2, 0, 1)
            ).permute(1, 2, 0)
        else:
            final = self._step_by_step(blank_padding(inputs, real), scores, state)[1]
        if att_scores.dim() == 2:
            return final.squeeze(1)
        return final

    def _gates(self, inputs: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Input half (T, G*H, B) of all steps, and the bias that stays inside the reset product (H,)."""
        bias, bias_n = self.biases()
        return attention_gru.input_half(blank_padding(inputs, real), self.weight_ih, bias), bias_n

    def biases(self) -> tuple[Tensor, Tensor]:
        """What joins the input half (G*H,), and what stays inside the reset product (H,)."""
        split = self.bias_hh.size(0) - self.units
        bias_n = self.bias_hh[split:]
        return self.bias_ih + torch.cat([self.bias_hh[:split], torch.zeros_like(bias_n)]), bias_n

    def _prepare(
        self, inputs: Tensor, att_scores: Tensor, init_state: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Masked scores (B, C, T), state (B, C, H) and mask (B, T)."""
        if inputs.dim() != 3 or inputs.size(2) != self.input_size:
            raise ValueError(f"inputs must be (B, T, {self.input_size}), got {list(inputs.shape)}")
        scores = att_scores.unsqueeze(1) if att_scores.dim() == 2 else att_scores
        if scores.dim() != 3 or scores.size(2) != inputs.size(1):
            raise ValueError(
                f"att_scores must be (B, T) or (B, C, T) with T = {inputs.size(1)}, got {list(att_scores.shape)}"
            )
        real = step_mask(mask, inputs)
        zero = torch.zeros((), dtype=scores.dtype, device=scores.device)
        # An attention of zero leaves the state exactly as it was, so the mask needs nothing else in the loop.
        scores = torch.where(real.unsqueeze(1), scores, zero)
        if init_state is None:
            state = zero.to(inputs.dtype).expand(scores.size(0), scores.size(1), self.units)
        else:
            state = init_state.unsqueeze(1) if init_state.dim() == 2 else init_state
        return scores, state, real

    def _step_by_step(self, inputs: Tensor, scores: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return self._loop(inputs, scores, state)
        if torch.compiler.is_exporting():
            # A Python loop over a dynamic axis exports "successfully", frozen to the example's length.
            raise ValueError("only activation='tanh' with reset_after=True can be exported, got another cell")
        return self._loop(inputs, scores, state)

    def _loop(self, inputs: Tensor, scores: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        gates = F.linear(inputs, self.weight_ih, self.bias_ih)
        states: list[Tensor] = []
        for t in range(scores.size(2)):
            state = self.step(gates[:, t].unsqueeze(1), state, scores[:, :, t].unsqueeze(-1))
            states.append(state)
        if len(states) == 0:
            return state.unsqueeze(2)[:, :, :0], state
        return torch.stack(states, 2), state


def dynamic_rnn_with_attention(
    cell: AGRUCell,
    inputs: Tensor,
    att_scores: Tensor,
    parallel_iterations: int = 1,
    swap_memory: bool = True,
    init_state: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Run an attention cell over time.

    Source: Zhou et al. 2019, arXiv:1809.03672. Differs from it: padding is masked.

    Args:
        cell: what to run.
        inputs: (B, T, D).
        att_scores: (B, T), or (B, C, T).
        parallel_iterations: ignored.
        swap_memory: ignored.
        init_state: (B, H), or (B, C, H); zeros by default.
        mask: (B, T).

    Returns:
        As ``AGRUCell.run``: a padded step gives a zero output and carries the state; a row without a real step
        returns its initial state.

    Raises:
        TypeError: if the cell is not an AGRUCell.
        ValueError: if a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import AGRUCell, dynamic_rnn_with_attention
        >>> outputs, final = dynamic_rnn_with_attention(AGRUCell(4, 3), torch.ones(2, 5, 4), torch.ones(2, 5))
        >>> outputs.shape, final.shape
        (torch.Size([2, 5, 3]), torch.Size([2, 3]))
    """
    _check_cell(cell)
    return cell.run(inputs, att_scores, init_state, mask)


def static_rnn_with_attention(
    cell: AGRUCell,
    inputs: Tensor,
    att_scores: Tensor,
    init_state: Tensor | None = None,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``dynamic_rnn_with_attention`` with one call of the cell a step: the same numbers, for reading and checking.

    Args:
        cell: what to run.
        inputs: (B, T, D).
        att_scores: (B, T).
        init_state: (B, H); zeros by default.
        mask: (B, T).

    Returns:
        Outputs (B, T, H) and the final state (B, H).

    Raises:
        TypeError: if the cell is not an AGRUCell.
        ValueError: if a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import AGRUCell, static_rnn_with_attention
        >>> outputs, final = static_rnn_with_attention(AGRUCell(4, 3), torch.ones(2, 5, 4), torch.ones(2, 5))
        >>> outputs.shape, final.shape
        (torch.Size([2, 5, 3]), torch.Size([2, 3]))
    """
    _check_cell(cell)
    if att_scores.dim() == 3:
        return cell.run(inputs, att_scores, init_state, mask)
    real = step_mask(mask, inputs)
    state = inputs.new_zeros(inputs.size(0), cell.units) if init_state is None else init_state
    outputs = create_ta("outputs", inputs.size(1), inputs.dtype)
    for t in range(inputs.size(1)):
        valid = real[:, t].unsqueeze(1)
        state = torch.where(valid, cell(inputs[:, t], state, att_scores[:, t]), state)
        outputs.write(t, torch.where(valid, state, torch.zeros_like(state)))
    if inputs.size(1) == 0:
        return inputs.new_zeros(inputs.size(0), 0, cell.units), state
    return outputs.stack().transpose(0, 1), state


def _check_cell(cell: object) -> None:
    if not isinstance(cell, AGRUCell):
        raise TypeError(f"cell must be an AGRUCell, got {type(cell).__name__}")


class AIGRU(nn.Module):
    """GRU whose inputs are scaled by attention.

    x_t becomes a_t x_t before a plain GRU. A real step with a = 0 still changes the state: the known weakness of this
    variant.

    Source: Zhou et al. 2019, arXiv:1809.03672. Differs from it: nothing.

    Shapes: inputs (B, T, D), att_scores (B, T), mask (B, T); returns outputs (B, T, H), zero on padding, and the final
    state (B, H). With scores (B, C, T): (B, C, T, H) and (B, C, H). State: gru.* as ``torch.nn.GRU``.

    Raises:
        ValueError: if a width is not positive or a tensor does not fit.

    Example:
        >>> import torch
        >>> from models.layers import AIGRU
        >>> outputs, final = AIGRU(4, 3)(torch.ones(2, 5, 4), torch.ones(2, 5))
        >>> outputs.shape, final.shape
        (torch.Size([2, 5, 3]), torch.Size([2, 3]))
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.gru = GRU(input_size, hidden_size)
        self.hidden_size = hidden_size

    def forward(self, inputs: Tensor, att_scores: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Outputs and final state."""
        states, real = self._states(inputs, att_scores, mask)
        final = last_state(states.flatten(0, 1)).reshape(states.size(0), states.size(1), self.hidden_size)
        outputs = blank_padding(states, real.unsqueeze(1).expand(-1, states.size(1), -1))
        if att_scores.dim() == 2:
            return outputs.squeeze(1), final.squeeze(1)
        return outputs, final

    def run_to_end(self, inputs: Tensor, att_scores: Tensor, mask: Tensor | None = None) -> Tensor:
        """The final state alone: (B, C, H) of scores (B, C, T)."""
        states, _ = self._states(inputs, att_scores, mask)
        return last_state(states.flatten(0, 1)).reshape(states.size(0), states.size(1), self.hidden_size)

    def _states(self, inputs: Tensor, att_scores: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """States (B, C, T, H) and mask (B, T)."""
        if inputs.dim() != 3:
            raise ValueError(f"inputs must be (B, T, D), got {list(inputs.shape)}")
        real = step_mask(mask, inputs)
        scores = att_scores.unsqueeze(1) if att_scores.dim() == 2 else att_scores
        if scores.dim() != 3 or scores.size(2) != inputs.size(1):
            raise ValueError(
                f"att_scores must be (B, T) or (B, C, T) with T = {inputs.size(1)}, got {list(att_scores.shape)}"
            )
        # Each candidate scales the inputs in its own way, so each is a row of the GRU.
        scaled = blank_padding(inputs, real).unsqueeze(1) * scores.unsqueeze(-1)
        tiled = real.unsqueeze(1).expand(-1, scores.size(1), -1)
        states = self.gru(scaled.flatten(0, 1), tiled.flatten(0, 1))
        return states.reshape(scores.size(0), scores.size(1), inputs.size(1), self.hidden_size), real

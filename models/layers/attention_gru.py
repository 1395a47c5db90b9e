"""The recurrence behind every GRU here: update and reset gates, with the update scaled by attention.

    u = sig(gates_u + U_u h)      r = sig(gates_r + U_r h)      n = tanh(gates_n + r * (U_n h + b_n))
    h' = (1 - a u) h + a u n                  a = 0 leaves h as it is, to the last bit

``gates`` is the input half of all steps, computed by the caller in one product. With ``a`` = the mask this is a plain
GRU that skips padding; with attention times the mask it is AUGRU; without the u block (two blocks r, n) u is 1: AGRU.

Source: Cho et al. 2014, arXiv:1406.1078; Zhou et al. 2019, arXiv:1809.03672. Differs from them: nothing.

Shapes, everywhere in this file, features before rows so that the gates' blocks are contiguous: gates (T, G*H, U) with
G = 3 (u, r, n) or 2 (r, n), shared by a user's candidates; weight_hh (G*H, H); bias_n (H,); attention (T, U, C);
initial (H, U, C); states (T, H, U, C).

One recurrence, three implementations: ``AttentionGRU`` (eager, with a gradient written by hand), ``loop`` (what
TorchScript compiles) and the operators ``ctrlift::attention_gru_*`` (what an exporter sees, and where a compiled kernel
would be hung on).
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class AttentionGRU(torch.autograd.Function):
    """All states of the recurrence, few tensor operations a step.

    Forward keeps the gates of every step. Backward is then linear in the incoming gradient: its coefficients are
    computed for all steps at once, the loop over time holds four operations, and each weight gradient is one batched
    product after it.
    """

    @staticmethod
    def forward(
        ctx: Any, gates: Tensor, weight_hh: Tensor, bias_n: Tensor, attention: Tensor, initial: Tensor
    ) -> Tensor:
        """States (T, H, U, C)."""
        steps, users, candidates = attention.shape
        width = initial.size(0)
        split = weight_hh.size(0) - width
        states = initial.new_empty(steps + 1, width, users, candidates)
        states[0] = initial
        squashed = initial.new_empty(steps, split, users, candidates)  # u and r, or r
        recurrent_n = initial.new_empty(steps, width, users, candidates)
        proposed = torch.empty_like(recurrent_n)
        shares = torch.empty_like(recurrent_n) if split > width else attention.unsqueeze(1).expand_as(recurrent_n)
        product = initial.new_empty(split + width, users * candidates)
        gate_product = product[:split].view(split, users, candidates)
        n_product = product[split:].view(width, users, candidates)
        shared, bias = gates.unsqueeze(-1), bias_n.view(width, 1, 1)
        # All views of all steps at once: at this size a view costs as much as the arithmetic on it.
        views = (
            states.view(steps + 1, width, users * candidates)[:-1],
            states[:-1],
            states[1:],
            squashed,
            squashed[:, :width],
            squashed[:, split - width :],
            recurrent_n,
            proposed,
            shares,
            shared[:, :split],
            shared[:, split:],
            attention,
        )
        for flat, h, h_next, gate, u, r, from_h, n, share, shared_gate, shared_n, score in zip(
            *(view.unbind(0) for view in views), strict=True
        ):
            torch.mm(weight_hh, flat, out=product)
            torch.add(gate_product, shared_gate, out=gate).sigmoid_()
            torch.add(n_product, bias, out=from_h)
            torch.addcmul(shared_n, r, from_h, out=n).tanh_()
            if split > width:
                torch.mul(u, score, out=share)
            torch.lerp(h, n, share, out=h_next)
        ctx.save_for_backward(weight_hh, states, squashed, recurrent_n, proposed, shares)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of all five inputs."""
        weight_hh, states, squashed, recurrent_n, proposed, shares = ctx.saved_tensors
        steps, width, users, candidates = grad_states.shape
        rows, blocks = users * candidates, weight_hh.size(0) // width
        before = states[:-1]
        reset = squashed[:, -width:]
        difference = proposed - before
        # What a gradient on h' is multiplied by to become one on each pre-activation.
        through_n = (proposed * proposed).neg_().add_(1.0).mul_(shares)
        coefficients = states.new_empty(steps, blocks, width, users, candidates)
        torch.mul(through_n, reset, out=coefficients[:, -1])
        torch.mul(coefficients[:, -1], recurrent_n, out=coefficients[:, -2]).mul_(1.0 - reset)
        if blocks == 3:
            torch.mul(difference, shares, out=coefficients[:, 0]).mul_(1.0 - squashed[:, :width])
        kept = 1.0 - shares
        arriving = torch.empty_like(difference)
        on_products = torch.empty_like(coefficients)
        carried = torch.zeros_like(states[0])
        flat_carried = carried.view(width, rows)
        transposed = weight_hh.t()
        views = (grad_states, arriving, coefficients, on_products, on_products.view(steps, blocks * width, rows), kept)
        for grad, arrived, coefficient, on_product, flat, keep in reversed(
            list(zip(*(view.unbind(0) for view in views), strict=True))
        ):
            torch.add(grad, carried, out=arrived)
            torch.mul(arrived, coefficient, out=on_product)
            torch.mul(arrived, keep, out=carried)
            flat_carried.addmm_(transposed, flat)
        by_row = on_products.view(steps, blocks * width, rows)
        grad_weight = torch.bmm(by_row, before.reshape(steps, width, rows).transpose(1, 2)).sum(0)
        grad_bias = on_products[:, -1].sum((0, 2, 3))
        grad_attention = None
        if ctx.needs_input_grad[3]:
            moved = difference.mul_(arriving)
            grad_attention = (moved.mul_(squashed[:, :width]) if blocks == 3 else moved).sum(1)
        # The n block enters the gates outside the reset product.
        torch.mul(arriving, through_n, out=on_products[:, -1])
        grad_gates = by_row if candidates == 1 else by_row.view(steps, blocks * width, users, candidates).sum(-1)
        return grad_gates, grad_weight, grad_bias, grad_attention, carried


def step(gates: Tensor, weight_hh: Tensor, bias_n: Tensor, attention: Tensor, h: Tensor) -> Tensor:
    """One step: gates (G*H, U), attention (U, C), h (H, U, C); returns the next h."""
    width = h.size(0)
    split = weight_hh.size(0) - width
    product = torch.mm(weight_hh, h.flatten(1)).view(split + width, h.size(1), h.size(2))
    squashed = torch.sigmoid(product[:split] + gates[:split].unsqueeze(-1))
    recurrent_n = product[split:] + bias_n.view(width, 1, 1)
    n = torch.tanh(gates[split:].unsqueeze(-1) + squashed[split - width :] * recurrent_n)
    share = attention
    if split > width:
        share = attention * squashed[:width]
    return h + share * (n - h)


def loop(gates: Tensor, weight_hh: Tensor, bias_n: Tensor, attention: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    """States (T, H, U, C) and the last one (H, U, C), by plain steps; compiles under TorchScript."""
    h = initial
    states: list[Tensor] = []
    for t in range(attention.size(0)):
        h = step(gates[t], weight_hh, bias_n, attention[t], h)
        states.append(h)
    if len(states) == 0:
        return initial.unsqueeze(0)[:0], h
    return torch.stack(states), h


@torch.library.custom_op("ctrlift::attention_gru_states", mutates_args=())
def attention_gru_states(
    gates: Tensor, weight_hh: Tensor, bias_n: Tensor, attention: Tensor, initial: Tensor
) -> Tensor:
    """All states (T, H, U, C), as one operator for exporters."""
    return run(gates, weight_hh, bias_n, attention, initial)[0].clone()


@attention_gru_states.register_fake
def _(gates: Tensor, weight_hh: Tensor, bias_n: Tensor, attention: Tensor, initial: Tensor) -> Tensor:
    return attention.new_empty(attention.size(0), *initial.shape)


@torch.library.custom_op("ctrlift::attention_gru_final", mutates_args=())
def attention_gru_final(gates: Tensor, weight_hh: Tensor, bias_n: Tensor, attention: Tensor, initial: Tensor) -> Tensor:
    """The last state (H, U, C), as one operator for exporters."""
    return run(gates, weight_hh, bias_n, attention, initial)[1].clone()


@attention_gru_final.register_fake
def _(gates: Tensor, weight_hh: Tensor, bias_n: Tensor, attention: Tensor, initial: Tensor) -> Tensor:
    return attention.new_empty(initial.shape)


def run(gates: Tensor, weight_hh: Tensor, bias_n: Tensor, attention: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
    """States (T, H, U, C) and the last one (H, U, C), by the implementation that fits the caller."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        return loop(gates, weight_hh, bias_n, attention, initial)
    if torch.compiler.is_exporting():
        states = attention_gru_states(gates, weight_hh, bias_n, attention, initial)
        return states, states[-1]
    if attention.size(0) == 0:
        return initial.unsqueeze(0)[:0], initial
    by_time: Tensor = AttentionGRU.apply(gates, weight_hh, bias_n, attention, initial)  # type: ignore[no-untyped-call]
    return by_time, by_time[-1]


def run_to_end(gates: Tensor, weight_hh: Tensor, bias_n: Tensor, attention: Tensor, initial: Tensor) -> Tensor:
    """The last state (H, U, C) alone, which spares an exported graph the others."""
    if torch.jit.is_scripting():  # type: ignore[attr-defined]
        h = initial
        for t in range(attention.size(0)):
            h = step(gates[t], weight_hh, bias_n, attention[t], h)
        return h
    if torch.compiler.is_exporting():
        final: Tensor = attention_gru_final(gates, weight_hh, bias_n, attention, initial)
        return final
    return run(gates, weight_hh, bias_n, attention, initial)[1]


def input_half(sequence: Tensor, weight_ih: Tensor, bias: Tensor) -> Tensor:
    """Gates (T, G*H, U) of all steps in one batched product: sequence (U, T, D), weight_ih (G*H, D), bias (G*H,)."""
    # Not matmul, which would multiply in another order and return a transposed view.
    weights = weight_ih.unsqueeze(0).expand(sequence.size(1), -1, -1)
    return torch.baddbmm(bias.view(1, -1, 1), weights, sequence.permute(1, 2, 0))

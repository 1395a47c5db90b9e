"""The auxiliary loss in pieces that stay in the cache, its gradient computed on the way.

The network of the auxiliary loss meets every step of every history twice and is, counted in products, the larger part
of training DIEN. Its activations are only needed for the gradient of one scalar, so each piece of rows goes forward and
backward at once, in buffers that the next piece reuses: the same products without the traffic of large tensors.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

ROWS_A_PIECE = 1024


class SigmoidDiscrimination(torch.autograd.Function):
    """Mean over both kinds of pairs of -log sigmoid(z+) and -log sigmoid(-z-), z = net[state, item].

    Shapes: states (M, S), clicked and not_clicked (M, D), then kernel (in, out) and bias (out,) of every layer; hidden
    layers have sigmoid activations, the last one is affine with one output. Returns a scalar, 0 where M = 0.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, clicked: Tensor, not_clicked: Tensor, *layers: Tensor) -> Tensor:
        """The loss; its gradients are kept for ``backward``."""
        pairs = states.size(0)
        gradients = [torch.zeros_like(tensor) for tensor in (states, clicked, not_clicked, *layers)]
        total = states.new_zeros(())
        if pairs:
            piece = min(pairs, ROWS_A_PIECE)
            buffers = [states.new_empty(2, piece, kernel.size(1)) for kernel in layers[::2]]
            spare = [torch.empty_like(buffer) for buffer in buffers[:-1]]
            for start in range(0, pairs, piece):
                rows = slice(start, min(start + piece, pairs))
                count = rows.stop - rows.start
                values = [_first(buffer, count) for buffer in buffers]
                total += _piece(
                    [tensor[rows] for tensor in (states, clicked, not_clicked)],
                    layers,
                    values,
                    [_first(buffer, count) for buffer in spare],
                    [gradient[rows] for gradient in gradients[:3]],
                    gradients[3:],
                )
            scale = 1.0 / (2 * pairs)
            total *= scale
            for gradient in gradients:
                gradient *= scale
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_loss: Tensor) -> tuple[Tensor, ...]:
        """Gradients of all inputs."""
        return tuple(gradient * grad_loss for gradient in ctx.saved_tensors)


def _first(buffer: Tensor, count: int) -> Tensor:
    # Contiguous for a shorter last piece too, so that both kinds of pairs are one product.
    return buffer.view(-1)[: 2 * count * buffer.size(2)].view(2, count, buffer.size(2))


def _piece(
    rows: Sequence[Tensor],
    layers: Sequence[Tensor],
    values: Sequence[Tensor],
    spare: Sequence[Tensor],
    row_gradients: Sequence[Tensor],
    layer_gradients: Sequence[Tensor],
) -> Tensor:
    """Sum of the losses of some rows; adds to the layers' gradients and sets those of the rows.

    Args:
        rows: states, clicked and not_clicked of the piece.
        layers: kernel and bias of every layer.
        values: a buffer (2, rows, width) for every layer.
        spare: the same for the hidden ones.
        row_gradients: of the rows.
        layer_gradients: of the layers.
    """
    state, clicked, not_clicked = rows
    of_state, of_item = layers[0].split([state.size(1), clicked.size(1)])  # type: ignore[no-untyped-call]
    shared = torch.addmm(layers[1], state, of_state)
    for item, value in zip((clicked, not_clicked), values[0], strict=True):
        torch.addmm(shared, item, of_item, out=value)
    for layer, value in enumerate(values[1:], 1):
        previous = values[layer - 1].sigmoid_().flatten(0, 1)
        torch.addmm(layers[2 * layer + 1], previous, layers[2 * layer], out=value.flatten(0, 1))
    positive, negative = values[-1]
    loss = F.softplus(-positive).sum() + F.softplus(negative).sum()
    torch.sigmoid(values[-1], out=values[-1])
    positive -= 1.0
    arriving = values[-1].flatten(0, 1)
    for layer in range(len(values) - 1, 0, -1):
        previous = values[layer - 1].flatten(0, 1)
        layer_gradients[2 * layer].addmm_(previous.t(), arriving)
        layer_gradients[2 * layer + 1].add_(arriving.sum(0))
        onward = spare[layer - 1].flatten(0, 1)
        torch.mm(arriving, layers[2 * layer].t(), out=onward)
        arriving = torch.ops.aten.sigmoid_backward.grad_input(onward, previous, grad_input=onward)
    on_positive, on_negative = arriving.view(2, -1, arriving.size(1))
    on_shared = on_positive + on_negative
    grad_of_state, grad_of_item = layer_gradients[0].split([state.size(1), clicked.size(1)])  # type: ignore[no-untyped-call]
    grad_of_state.addmm_(state.t(), on_shared)
    layer_gradients[1].add_(on_shared.sum(0))
    torch.mm(on_shared, of_state.t(), out=row_gradients[0])
    for item, gradient, on_item in zip(
        (clicked, not_clicked), row_gradients[1:], (on_positive, on_negative), strict=True
    ):
        grad_of_item.addmm_(item.t(), on_item)
        torch.mm(on_item, of_item.t(), out=gradient)
    return loss

"""Named weight initialisers with explicit fans, so that (in, out) and (out, in) matrices start alike."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

Initializer = str | Callable[[Tensor], Tensor | None]

NAMES = ("zeros", "ones", "glorot_uniform", "glorot_normal", "he_uniform", "he_normal")


def initialize(tensor: Tensor, initializer: Initializer, fan_in: int, fan_out: int) -> None:
    """Fill a parameter.

    Args:
        tensor: what to fill, in place.
        initializer: one of ``NAMES``, or a callable that fills the tensor it gets or returns a new one.
        fan_in: inputs that reach one unit.
        fan_out: units that one input reaches.

    Raises:
        ValueError: if the name is unknown.
    """
    with torch.no_grad():
        if not isinstance(initializer, str):
            filled = initializer(tensor)
            if filled is not None and filled is not tensor:
                tensor.copy_(filled)
            return
        fans = fan_in + fan_out if initializer.startswith("glorot") else fan_in
        match initializer:
            case "zeros":
                nn.init.zeros_(tensor)
            case "ones":
                nn.init.ones_(tensor)
            case "glorot_uniform" | "he_uniform":
                bound = math.sqrt(6.0 / max(fans, 1))
                nn.init.uniform_(tensor, -bound, bound)
            case "glorot_normal" | "he_normal":
                nn.init.normal_(tensor, 0.0, math.sqrt(2.0 / max(fans, 1)))
            case _:
                raise ValueError(f"initializer must be a callable or one of {', '.join(NAMES)}; got {initializer!r}")

"""Which fold a row belongs to, decided by the row's own content."""

from __future__ import annotations

import torch
from torch import Tensor

from training.uplift.rows import UpliftRows

_MULTIPLIER = 6364136223846793005
_SEED = 1442695040888963407


def row_folds(rows: UpliftRows, folds: int) -> Tensor:
    """A fold 0..folds-1 for each row, a pure function of what the row holds.

    A row falls into the same fold in every minibatch, and users with equal features fall into one. Treatment and
    outcome have no part in it: with them, a fold's networks would miss just the rows of one outcome among equal users.

    Shapes: returns (B,) int64.

    Args:
        rows: of any batch.
        folds: how many.
    """
    user_ids, user_numbers, behaviour_ids, _, behaviour_mask = rows.inputs
    # Sums over time, so that the length that a batch is padded to has no part in it.
    history = (behaviour_ids * behaviour_mask.any(-1, keepdim=True)).sum(1)
    state = torch.full_like(rows.treatment, _SEED)
    for column in (user_ids, user_numbers, history):
        state = _mixed(state, _integers(column))
    return torch.remainder(torch.bitwise_right_shift(state, 33), folds)


def _mixed(state: Tensor, values: Tensor) -> Tensor:
    """The state after every column of (B, W), by multiply and xor-shift with wrapping integers."""
    for i in range(values.size(1)):
        state = (state ^ values[:, i]) * _MULTIPLIER
        state = state ^ torch.bitwise_right_shift(state, 29)
    return state


def _integers(column: Tensor) -> Tensor:
    """Floats by their bits, with one zero; integers as they are."""
    if column.is_floating_point():
        return (column.float() + 0.0).contiguous().view(torch.int32).long()
    return column.long()

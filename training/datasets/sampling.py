"""Negative down-sampling of training rows."""

import numpy as np
from numpy.typing import NDArray


def kept_rows(labels: NDArray[np.float32], rate: float, seed: int) -> NDArray[np.int64]:
    """Indices of the rows to train on: every row but the negatives, and each negative with probability `rate`.

    Each row has its own draw, in the order of the rows, so that a larger rate keeps a superset.

    Shapes: labels (N,), NaN where there is no label (kept) -> (M,) ascending.

    Raises:
        ValueError: if the rate is not in (0, 1].
    """
    if not 0 < rate <= 1:
        raise ValueError(f"rate must lie in (0, 1], got {rate}")
    draw = np.random.default_rng(seed).random(len(labels))
    return np.flatnonzero((labels != 0) | (draw < rate)).astype(np.int64)

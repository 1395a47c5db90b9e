"""Rows of a data set as the network takes them: encoded once, beside their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bundle.encode import EncodedRows, Encoder
from training.batches import Float32, Int64, Targets, to_tensors
from training.config import SamplingSection
from training.datasets import Part


@dataclass(frozen=True, slots=True)
class EncodedPart:
    """One split, ready for a network.

    Attributes:
        rows: N users with one candidate each.
        lengths: (N,) history lengths as the network sees them.
        targets: labels, weights and rates, (N, K) each.
        groups: (N,) int64, the key of GAUC.
        users: (N,) uint64, what the bootstrap resamples.
        tasks: names of the K columns.
    """

    rows: EncodedRows
    lengths: Int64
    targets: Targets
    groups: NDArray[Any]
    users: NDArray[np.uint64]
    tasks: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.lengths)


def encode_part(encoder: Encoder, part: Part, tasks: Sequence[str], rates: Mapping[str, float]) -> EncodedPart:
    """Encode whole columns.

    Args:
        encoder: of the fitted schema.
        part: the split.
        tasks: the order of the network's outputs.
        rates: keep rate of the negatives by task, used where the part has none of its own a row.
    """
    rows = encoder.encode(part.rows)
    return EncodedPart(
        rows=rows,
        lengths=rows.lengths,
        targets=targets_of(part, tasks, rates),
        groups=part.groups,
        users=part.users,
        tasks=tuple(tasks),
    )


def targets_of(part: Part, tasks: Sequence[str], rates: Mapping[str, float]) -> Targets:
    """Labels, weights and keep rates as (N, K) columns; a missing label weighs nothing."""

    def stacked(columns: Sequence[NDArray[Any]]) -> Float32:
        return np.stack([np.asarray(column, dtype=np.float32) for column in columns], axis=1)

    labels = stacked([part.labels[task] for task in tasks])
    weights = stacked([part.weights.get(task, np.ones(len(part))) for task in tasks])
    own = part.negative_rate or {}
    kept = stacked([own.get(task, np.full(len(part), rates.get(task, 1.0))) for task in tasks])
    return Targets(labels=labels, weights=np.where(np.isnan(labels), np.float32(0), weights), rates=kept)


def predict_logits(network: nn.Module, part: EncodedPart, batch_size: int = 2048) -> NDArray[np.float64]:
    """The network's logits for every row, (N, K) float64, in the order of the rows.

    Rows of like length are taken together, so that little padding is computed; in eval mode a row's logits do not
    depend on its neighbours.
    """
    order = np.argsort(part.lengths, kind="stable").astype(np.int64)
    logits = np.empty((len(part), len(part.tasks)), dtype=np.float64)
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    with torch.no_grad():
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            inputs = tuple(tensor.to(device) for tensor in to_tensors(part.rows.take(rows)))
            logits[rows] = network(*inputs)[:, 0, :].double().cpu().numpy()
    network.train(was_training)
    return logits


def unsampled_logits(logits: NDArray[np.float64], rates: Float32, sampling: SamplingSection) -> NDArray[np.float64]:
    """Logits of the unsampled population, (N, K).

    Where the correction belongs to serving the network describes the sampled rows and log w is added back; in the
    other modes it describes the population already.
    """
    if sampling.mode != "serving":
        return logits
    shift: NDArray[np.float64] = np.log(rates.astype(np.float64))
    return logits + shift


def population_weights(targets: Targets, sampling: SamplingSection) -> NDArray[np.float64]:
    """Weights that make the rows stand for the unsampled population, (N, K).

    A file that was sampled before it came here (``upstream``) is short of negatives in its validation rows too, so
    each one that was kept stands for 1 / w of them; otherwise only training rows were dropped.
    """
    weights = targets.weights.astype(np.float64)
    if not sampling.upstream:
        return weights
    return np.where(targets.labels == 0, weights / targets.rates, weights)

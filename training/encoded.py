"""Rows of a data set as the network takes them: encoded once, beside their labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bundle.encode import EncodedRows, Encoder
from training.batches import Float32, Int64, Targets, to_tensors
from training.config import SamplingSection
from training.datasets import Part
from training.datasets.funnel import BOTH, CLICK, CONVERSION


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
        joint: of a funnel, click and conversion together on all rows, (N, 1) each; else None.
    """

    rows: EncodedRows
    lengths: Int64
    targets: Targets
    groups: NDArray[Any]
    users: NDArray[np.uint64]
    tasks: tuple[str, ...]
    joint: Targets | None = None

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
        joint=joint_targets(part, rates) if BOTH in part.labels else None,
    )


def joint_targets(part: Part, rates: Mapping[str, float]) -> Targets:
    """Targets of click and conversion together, (N, 1) each.

    Rows were dropped by their clicks: only a row without one stands for others like it.
    """
    joint, click = targets_of(part, (BOTH,), {}), targets_of(part, (CLICK,), rates)
    return replace(joint, rates=np.where(click.labels == 0, click.rates, np.float32(1)))


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


def with_joint(probabilities: Mapping[str, NDArray[np.float64]], part: EncodedPart) -> dict[str, NDArray[np.float64]]:
    """Probabilities by task, (N,) each, in a funnel also of click and conversion together."""
    if part.joint is None:
        return dict(probabilities)
    return {**probabilities, BOTH: probabilities[CLICK] * probabilities[CONVERSION]}


def measured_columns(part: EncodedPart, sampling: SamplingSection) -> dict[str, tuple[Float32, NDArray[np.float64]]]:
    """Labels and population weights by measured task, (N,) each; a conversion counts on clicked rows."""
    weights = population_weights(part.targets, sampling)
    found = {task: (part.targets.labels[:, k], weights[:, k]) for k, task in enumerate(part.tasks)}
    if part.joint is not None:
        found[BOTH] = part.joint.labels[:, 0], population_weights(part.joint, sampling)[:, 0]
    return found


def population_weights(targets: Targets, sampling: SamplingSection) -> NDArray[np.float64]:
    """Weights that make the rows stand for the unsampled population, (N, K).

    A file that was sampled before it came here (``upstream``) is short of negatives in its validation rows too, so
    each one that was kept stands for 1 / w of them; otherwise only training rows were dropped.
    """
    weights = targets.weights.astype(np.float64)
    if not sampling.upstream:
        return weights
    return np.where(targets.labels == 0, weights / targets.rates, weights)
